"""What the contract itself says of secrets: which calls need no token, and that nothing secret stands in an address."""

import re
from collections.abc import Iterator
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from espalier_common.rpc.permissions import PUBLIC, all_services, requirement

ROOT = Path(__file__).resolve().parents[2]
SECRETS = re.compile(r"(^|_)(password|passwd|secret|token|credential|api_key|key|code|otp|pin)s?($|_)")
# Opaque places in a list, and counts of language tokens.
NO_SECRETS = {"page_token", "next_page_token"}
HINTS = re.compile(r"hint|question|answer|reminder|mother|birth", re.IGNORECASE)


def test_every_call_without_a_token_is_named_in_the_document() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    _, _, section = page.partition("## Ways in")
    section, _, _ = section.partition("\n## ")
    named = set(re.findall(r"`(\w+Service\.\w+)`", section))
    assert named == {f"{rpc.containing_service.name}.{rpc.name}" for rpc in _rpcs() if requirement(rpc) == PUBLIC}


def test_no_secret_is_asked_for_in_an_address() -> None:
    found = []
    for rpc in _rpcs():
        rule = rpc.GetOptions().Extensions[annotations_pb2.http]
        if not (verb := rule.WhichOneof("pattern")):
            continue
        in_path = set(re.findall(r"{([\w.]+)", getattr(rule, verb)))
        in_body = {field.name for field in rpc.input_type.fields if rule.body in {"*", field.name}} - in_path
        in_address = [field for field in rpc.input_type.fields if field.name not in in_body]
        found += [f"{rpc.full_name}: {field.name}" for field in in_address if _is_secret(field)]
    assert found == []


def test_nobody_is_asked_for_a_hint_or_a_secret_answer() -> None:
    auth = [rpc for rpc in _rpcs() if rpc.full_name.startswith("espalier.auth.v1.")]
    fields = {field.full_name for rpc in auth for field in [*rpc.input_type.fields, *rpc.output_type.fields]}
    user = next(rpc.output_type for rpc in auth if rpc.name == "CreateUser")
    fields |= {field.full_name for field in user.fields}
    assert len(fields) > 100
    assert [name for name in sorted(fields) if HINTS.search(name.rpartition(".")[2])] == []


def _is_secret(field: FieldDescriptor) -> bool:
    is_text = field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
    return is_text and field.name not in NO_SECRETS and bool(SECRETS.search(field.name)) and not _is_id(field)


def _is_id(field: FieldDescriptor) -> bool:
    return field.name.endswith("_id")


def _rpcs() -> Iterator[MethodDescriptor]:
    for service in all_services():
        yield from service.methods
