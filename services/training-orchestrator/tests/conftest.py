"""The orchestrator as its callers meet it: real PostgreSQL, the real edge, and a launcher that only remembers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from espalier.training_orchestrator.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    telemetry_pb2_grpc,
    workload_pb2_grpc,
)
from espalier_common.db import Database
from espalier_common.testing.rpc import RpcTestServer
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.assembly import Assembly, assemble
from espalier_training_orchestrator.events import publish
from espalier_training_orchestrator.launchers import Launcher
from espalier_training_orchestrator.launchers.outcome import KILLED_ON_REQUEST, PROCESS_DIED, ended_in_order
from espalier_training_orchestrator.rpc import servicers
from espalier_training_orchestrator.settings import TrainingOrchestratorSettings
from espalier_training_orchestrator.spec import LaunchSpec, Observation, Phase

PACKAGE = "espalier_training_orchestrator"
ALICE = "018f6e1c-0b0a-7c3e-9d5a-0000000000aa"
BOB = "018f6e1c-0b0a-7c3e-9d5a-0000000000bb"
DEADLINE = 120.0


@dataclass
class MemoryLauncher:
    """Remembers launches; a test says what becomes of them. Outlives the orchestrators of a test, as processes do."""

    specs: dict[str, LaunchSpec] = field(default_factory=dict)
    seen: dict[str, Observation] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    cancelled: list[tuple[str, bool]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    logs: dict[tuple[str, int], bytes] = field(default_factory=dict)
    fail_submit: Exception | None = None

    def plan(self, spec: LaunchSpec) -> Mapping[str, Any]:
        return {"name": spec.name}

    def submit(self, spec: LaunchSpec) -> None:
        if self.fail_submit is not None:
            raise self.fail_submit
        if spec.name not in self.specs:
            Path(spec.directory).mkdir(parents=True, exist_ok=True)
            self.specs[spec.name] = spec
            self.seen[spec.name] = Observation(phase=Phase.STARTING)
            self.started.append(spec.name)

    def observe(self, name: str, directory: str) -> Observation | None:
        return self.seen.get(name)

    def read_log(self, name: str, directory: str, *, rank: int, offset: int, limit: int) -> bytes:
        return self.logs.get((name, rank), b"")[offset : offset + limit]

    def cancel(self, name: str, directory: str, *, now: bool) -> None:
        self.cancelled.append((name, now))
        if now and name in self.seen:
            outcome = KILLED_ON_REQUEST
            self.seen[name] = Observation(phase=outcome.phase, reason=outcome.reason, message=outcome.message)

    def forget(self, name: str, directory: str) -> None:
        self.forgotten.append(name)

    def end(self, name: str, exit_code: int, message: str = "") -> None:
        """The attempt leaves a result."""
        self.seen[name] = ended_in_order({"exit_code": exit_code, "message": message})

    def die(self, name: str) -> None:
        """The process is gone without a word."""
        self.seen[name] = Observation(
            phase=PROCESS_DIED.phase, reason=PROCESS_DIED.reason, message=PROCESS_DIED.message, log_tail=("last words",)
        )


@dataclass
class MemoryLimits:
    """What is held, by user, amounts and seconds; refuses once `refusal` is set."""

    held: dict[str, tuple[str, dict[str, float], float]] = field(default_factory=dict)
    refusal: Exception | None = None

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.held[reservation_id] = (user_id, dict(amounts), seconds)


@dataclass
class Orchestrator:
    """A running service, driven round by round."""

    server: RpcTestServer
    assembly: Assembly
    settings: TrainingOrchestratorSettings
    launcher: MemoryLauncher
    artifacts: Path
    limits: MemoryLimits

    @property
    def database(self) -> Database:
        return self.assembly.database

    def datasets(self, subject: str = ALICE, scope: str = "own") -> Any:
        return dataset_service_pb2_grpc.DatasetServiceStub(self._channel(subject, scope))

    def runs(self, subject: str = ALICE, scope: str = "own") -> Any:
        return run_service_pb2_grpc.RunServiceStub(self._channel(subject, scope))

    def workloads(self) -> Any:
        return workload_pb2_grpc.WorkloadServiceStub(self._channel(ALICE, "all"))

    def runner(self) -> Any:
        return telemetry_pb2_grpc.RunnerServiceStub(self.server.channel())

    async def tick(self, rounds: int = 1) -> None:
        """Rounds of the reconciler."""
        for _ in range(rounds):
            await asyncio.to_thread(self.assembly.reconciler.tick)

    async def check_datasets(self) -> None:
        await asyncio.to_thread(self.assembly.checker.tick)

    def upload(self, content: bytes, *, filename: str = "rows.jsonl", owner: str = ALICE) -> str:
        """A finished upload."""
        store = UploadStore(self.settings.artifacts_url)
        upload = store.create(owner=owner, filename=filename, length=len(content))
        store.append(upload.id, offset=0, chunks=[content])
        return store.finish(upload.id).id

    async def dataset_version(self, *files: dataset_pb2.DatasetFile, **fields: Any) -> dataset_pb2.DatasetVersion:
        """A checked version of a new dataset of Alice's."""
        stub = self.datasets()
        name = f"corpus-{time.monotonic_ns()}"
        dataset = await stub.CreateDataset(
            dataset_service_pb2.CreateDatasetRequest(dataset=dataset_pb2.Dataset(name=name))
        )
        version = await stub.CreateDatasetVersion(
            dataset_service_pb2.CreateDatasetVersionRequest(
                dataset_id=dataset.id, version=dataset_pb2.DatasetVersion(files=files, **fields)
            )
        )
        await self.check_datasets()
        return await stub.GetDatasetVersion(dataset_service_pb2.GetDatasetVersionRequest(version_id=version.id))

    async def text_version(self) -> str:
        """Id of a version that `pt` can train on."""
        rows = b"".join(json.dumps({"text": f"line {number}"}).encode() + b"\n" for number in range(20))
        train = dataset_pb2.DatasetFile(split="train", upload_id=self.upload(rows))
        version = await self.dataset_version(train)
        assert version.state == dataset_pb2.DATASET_VERSION_STATE_READY, version
        return version.id

    async def queued_run(self, **changes: Any) -> run_pb2.Run:
        """A run of Alice's that waits."""
        spec = pt_spec(changes.pop("version_id", None) or await self.text_version(), **changes)
        return await self.runs().CreateRun(run_service_pb2.CreateRunRequest(run=run_pb2.Run(name="first", spec=spec)))

    async def run_now(self, run_id: str) -> run_pb2.Run:
        return await self.runs().GetRun(run_service_pb2.GetRunRequest(run_id=run_id))

    def spec_of(self, run_id: str, attempt: int = 1) -> LaunchSpec:
        return self.launcher.specs[f"run-{run_id}-a{attempt}"]

    def _channel(self, subject: str, scope: str) -> Any:
        return self.server.channel(permissions=["training.*"], subject=subject, scope=scope)


def pt_spec(version_id: str, **changes: Any) -> run_pb2.RunSpec:
    """The smallest run there is."""
    scratch = run_pb2.ScratchModel(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        vocab_size=300,
    )
    fields: dict[str, Any] = {
        "stage": run_pb2.STAGE_PT,
        "base_model": run_pb2.BaseModel(scratch=scratch),
        "dataset_version_ids": [version_id],
        "hyperparameters": run_pb2.Hyperparameters(max_steps=10, save_steps=5),
    }
    return run_pb2.RunSpec(**(fields | changes))


def write_checkpoint(
    run_dir: Path, run_id: str, *, step: int, attempt: int = 1, name: str = "", tokens: int = 0
) -> Path:
    """A complete checkpoint (or, with the name `model`, a finished model) as the trainer leaves it."""
    directory = run_dir / name if name else run_dir / "checkpoints" / f"step-{step}"
    directory.mkdir(parents=True)
    content = f"weights of step {step}".encode()
    (directory / "weights.bin").write_bytes(content)
    import hashlib

    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files = {"weights.bin": entry}
    manifest = {"run_id": run_id, "attempt": attempt, "step": step, "tokens": tokens, "files": files}
    (directory / "MANIFEST.json").write_text(json.dumps(manifest))
    return directory


OrchestratorFactory = Callable[..., Awaitable[Orchestrator]]


@pytest.fixture
def launcher() -> MemoryLauncher:
    return MemoryLauncher()


@pytest.fixture
def limits() -> MemoryLimits:
    return MemoryLimits()


@pytest.fixture
def start(
    rpc_server: Any, migrated_database: Any, tmp_path: Path, launcher: MemoryLauncher, limits: MemoryLimits
) -> OrchestratorFactory:
    """Factory: a service over one database; called again it is the same service after its death."""
    databases: list[Database] = []

    async def start(*, launcher: Launcher = launcher, **changes: Any) -> Orchestrator:
        if not databases:
            databases.append(migrated_database(PACKAGE))
        settings = TrainingOrchestratorSettings(
            listen=changes.pop("listen", "127.0.0.1:0"),
            artifacts_url=f"file://{tmp_path}/artifacts",
            service_secret="s3cret",
            **({"capacity_ranks": 4, "gpus": 0, "runner_address": "127.0.0.1:1"} | changes),
        )
        assembly = assemble(settings, database=databases[0], launcher=launcher, publish=publish, limits=limits)
        server = await rpc_server(servicers(assembly, settings), settings=settings)
        memory = launcher if isinstance(launcher, MemoryLauncher) else MemoryLauncher()
        return Orchestrator(server, assembly, settings, memory, tmp_path / "artifacts", limits)

    return start


@pytest.fixture
async def orchestrator(start: OrchestratorFactory) -> Orchestrator:
    return await start()


@pytest.fixture
def spec() -> Callable[..., run_pb2.RunSpec]:
    """`pt_spec`, for test modules (they import nothing of each other)."""
    return pt_spec


@pytest.fixture
def checkpoint() -> Callable[..., Path]:
    """`write_checkpoint`, for test modules."""
    return write_checkpoint


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]:
    """Awaits a look until what it gives is true."""

    async def wait(look: Callable[[], Awaitable[Any]], seconds: float = DEADLINE) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := await look():
                return found
            await asyncio.sleep(0.02)
        raise AssertionError("it did not happen in time")

    return wait


@pytest.fixture
def people() -> tuple[str, str]:
    """Ids of two users."""
    return ALICE, BOB
