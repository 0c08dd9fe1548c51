"""The contract keeps its own rules: it lints, its generated code is fresh, and every RPC says all about itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path = PROTO) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, check=False)


def test_generated_code_is_fresh() -> None:
    done = run(sys.executable, PROTO / "generate.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_protos_lint_and_every_message_and_field_is_commented() -> None:
    done = run(BIN / "buf", "lint")
    assert done.returncode == 0, done.stdout


def test_the_protos_are_formatted() -> None:
    done = run(BIN / "buf", "format", "--diff", "--exit-code", ".")
    assert done.returncode == 0, done.stdout


def test_a_removed_field_is_found_to_break_the_contract(tmp_path: Path) -> None:
    changed = tmp_path / "proto"
    shutil.copytree(PROTO, changed, ignore=shutil.ignore_patterns("gen"))
    shutil.copytree(changed, tmp_path / "before")
    source = changed / "espalier" / "prompt" / "v1" / "service.proto"
    source.write_text(source.read_text("utf-8").replace("  int32 version = 5;\n", ""), "utf-8")
    done = run(BIN / "buf", "breaking", "--against", tmp_path / "before", cwd=changed)
    assert "version" in done.stdout
    assert done.returncode != 0


def test_the_contract_does_not_break_the_last_release(tmp_path: Path) -> None:
    tag = run("git", "describe", "--tags", "--abbrev=0", "--match", "v*", cwd=ROOT).stdout.strip()
    if not tag:
        pytest.skip("there is no release yet")
    archive = tmp_path / "proto.tar"
    assert run("git", "archive", "--output", archive, tag, "proto", cwd=ROOT).returncode == 0
    shutil.unpack_archive(archive, tmp_path)
    done = run(BIN / "buf", "breaking", "--against", tmp_path / "proto")
    assert done.returncode == 0, done.stdout


def services() -> list[tuple[str, descriptor_pb2.MethodDescriptorProto]]:
    from espalier.common.v1 import options_pb2  # noqa: F401  (registers the options before the set is parsed)

    files = descriptor_pb2.FileDescriptorSet.FromString((PROTO / "gen" / "espalier" / "descriptors.binpb").read_bytes())
    ours = [file for file in files.file if file.package.startswith("espalier.")]
    return [(f"{f.package}.{s.name}/{m.name}", m) for f in ours for s in f.service for m in s.method]


def test_every_rpc_names_its_permission() -> None:
    from espalier.common.v1 import options_pb2

    missing = [name for name, method in services() if not method.options.Extensions[options_pb2.requires]]
    assert missing == []


def test_every_rpc_has_a_route_or_is_for_services_alone() -> None:
    from google.api import annotations_pb2

    internal = {
        "espalier.auth.v1.ApiKeyService/ExchangeApiKey",
        "espalier.auth.v1.AuthService/IssueServiceToken",
        "espalier.auth.v1.OidcService/EndProviderSessions",  # providers send a form, no JSON
        "espalier.auth.v1.GroupService/ListPeers",
        "espalier.auth.v1.RevocationService/ListRevocations",
        "espalier.auth.v1.QuotaService/ReserveUsage",
        "espalier.chat.v1.CompletionService/CreateCompletion",  # the gateway's /v1/chat/completions, no REST of ours
        "espalier.model_registry.v1.DeploymentService/ResolveEndpoint",
        "espalier.training_orchestrator.v1.RunnerService/RegisterAttempt",
        "espalier.training_orchestrator.v1.RunnerService/Heartbeat",
        "espalier.training_orchestrator.v1.WorkloadService/CreateWorkload",
        "espalier.training_orchestrator.v1.WorkloadService/GetWorkload",
        "espalier.training_orchestrator.v1.WorkloadService/DeleteWorkload",
    }
    without = {name for name, method in services() if not method.options.HasExtension(annotations_pb2.http)}
    assert without == internal


def test_no_rpc_offers_an_int64_to_json() -> None:
    """A 64-bit integer is a string in proto JSON; whole numbers beyond 32 bits are doubles in what REST answers."""
    files = descriptor_pb2.FileDescriptorSet.FromString((PROTO / "gen" / "espalier" / "descriptors.binpb").read_bytes())
    wide = {descriptor_pb2.FieldDescriptorProto.TYPE_INT64, descriptor_pb2.FieldDescriptorProto.TYPE_UINT64}
    found = [
        f"{file.package}.{message.name}.{field.name}"
        for file in files.file
        if file.package.startswith("espalier.")
        for message in file.message_type
        for field in message.field
        if field.type in wide
    ]
    assert found == []
