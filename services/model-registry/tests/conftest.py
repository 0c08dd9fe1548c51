"""A registry on a real database with an orchestrator that lives in the test."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from espalier.model_registry.v1 import service_pb2, service_pb2_grpc
from espalier.training_orchestrator.v1 import run_service_pb2, run_service_pb2_grpc
from espalier_common.db import Database, new_id
from espalier_common.errors import EspalierError
from espalier_common.identity import Principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.channel import open_sync_channel
from espalier_common.testing.plugin import MigratedDatabase
from espalier_model_registry.events import publish
from espalier_model_registry.models import ModelVersion, TrainedModel
from espalier_model_registry.peers import OrchestratorRuns
from espalier_model_registry.reconciler import Reconciler
from espalier_model_registry.rpc import DeploymentRpc, ModelRpc
from espalier_model_registry.servers import Server, ServerState
from espalier_model_registry.service import Registry
from espalier_model_registry.settings import ModelRegistrySettings


class RunsPeer(run_service_pb2_grpc.RunServiceServicer):
    """RunService as the registry uses it: models by run id; remembers the tokens that came along."""

    def __init__(self) -> None:
        self.models: dict[str, run_service_pb2.RunModel] = {}
        self.tokens: list[str] = []

    def add(self, **fields: Any) -> str:
        """A finished run; gives its id."""
        run_id = new_id()
        defaults: dict[str, Any] = {
            "uri": f"file:///artifacts/runs/{run_id}/model",
            "manifest_sha256": "ab" * 32,
            "step": 40,
            "parameters": 1e6,
            "template": "chatml",
            "dataset_version_ids": [new_id()],
        }
        self.models[run_id] = run_service_pb2.RunModel(run_id=run_id, **(defaults | fields))
        return run_id

    def GetRunModel(
        self, request: run_service_pb2.GetRunModelRequest, context: grpc.ServicerContext
    ) -> run_service_pb2.RunModel:
        self.tokens.append(dict(context.invocation_metadata())["authorization"])  # type: ignore[arg-type]
        if request.run_id not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, "There is no run.")
        return self.models[request.run_id]


@pytest.fixture
def runs_peer() -> RunsPeer:
    return RunsPeer()  # type: ignore[abstract]


@pytest.fixture
def runs_channel(runs_peer: RunsPeer) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(2))
    run_service_pb2_grpc.add_RunServiceServicer_to_server(runs_peer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open_sync_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None)


@dataclass
class ServersPeer:
    """Model servers in memory: the orchestrator's side of `Workloads`."""

    servers: dict[str, Server] = field(default_factory=dict)
    launches: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    error: EspalierError | None = None
    removal_takes: int = 0

    def _answer(self) -> None:
        if self.error:
            raise self.error

    def launch(self, *, name: str, model_uri: str, served_name: str, device: str, owner_id: str) -> Server:
        self._answer()
        self.owners[name] = owner_id
        if name not in self.servers:
            self.launches.append(name)
            self.put(name, ServerState.STARTING)
        return self.servers[name]

    def find(self, name: str) -> Server | None:
        self._answer()
        return self.servers.get(name)

    def remove(self, name: str) -> None:
        self._answer()
        if self.removal_takes:
            self.removal_takes -= 1
        else:
            self.servers.pop(name, None)

    def put(self, name: str, state: ServerState, *, reason: str = "", message: str = "") -> None:
        url = "http://127.0.0.1:9000/v1" if state is ServerState.READY else ""
        self.servers[name] = Server(state=state, reason=reason, message=message, base_url=url)


@pytest.fixture
def servers() -> ServersPeer:
    return ServersPeer()


@pytest.fixture
def database(emptied_database: MigratedDatabase) -> Database:
    """Empty for the test."""
    return emptied_database("espalier_model_registry")


@dataclass
class MemoryLimits:
    """What was asked for; refuses once `refusal` is set."""

    asked: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    refusal: EspalierError | None = None

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        self.asked.append((user_id, dict(amounts)))
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def limits() -> MemoryLimits:
    return MemoryLimits()


@pytest.fixture
def registry(limits: MemoryLimits) -> Registry:
    return Registry(publish, limits=limits)


@pytest.fixture
def new_reconciler(database: Database, servers: ServersPeer) -> Callable[[], Reconciler]:
    """Factory: a reconciler as another process of the registry makes it."""
    settings = ModelRegistrySettings(model_registry_starting_poll_seconds=0.01, model_registry_ready_poll_seconds=0.01)
    return lambda: Reconciler(database, workloads=servers, publish=publish, settings=settings)


@pytest.fixture
def reconciler(new_reconciler: Callable[[], Reconciler]) -> Reconciler:
    return new_reconciler()


@pytest.fixture
async def api(rpc_server: Any, database: Database, registry: Registry, runs_channel: grpc.Channel) -> Any:
    """The registry's own RPCs behind the real edge."""
    paginator, services = Paginator("secret"), service_pb2.DESCRIPTOR.services_by_name
    models = ModelRpc(database, registry=registry, runs=OrchestratorRuns(runs_channel), paginator=paginator)
    deployments = DeploymentRpc(database, registry=registry, paginator=paginator)
    return await rpc_server(
        [
            (service_pb2_grpc.add_ModelServiceServicer_to_server, models, services["ModelService"]),
            (service_pb2_grpc.add_DeploymentServiceServicer_to_server, deployments, services["DeploymentService"]),
        ]
    )


@pytest.fixture
def trained_model() -> TrainedModel:
    """What the orchestrator tells of a finished run."""
    return TrainedModel(
        run_id=new_id(),
        uri="file:///artifacts/runs/1/model",
        manifest_sha256="ab" * 32,
        step=40,
        parameters=1e6,
        dataset_version_ids=(new_id(),),
        base_run_id=None,
        template="chatml",
    )


@pytest.fixture
def version(database: Database, registry: Registry, trained_model: TrainedModel) -> ModelVersion:
    """A version of Ada's."""
    ada = Principal("ada", "Ada", "user", (), frozenset({"models.*"}), "own")
    with database.transaction() as session:
        model = registry.create_model(session, ada, name="tuned", description="")
        return registry.register_version(session, ada, model_id=model.id, trained=trained_model)
