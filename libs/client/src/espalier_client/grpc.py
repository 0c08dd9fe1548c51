"""A typed gRPC client for other systems: the generated stubs over one channel that carries the token.

with connect("127.0.0.1:7002", token) as espalier:
    for run in espalier.runs.ListRuns(ListRunsRequest()).runs: ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from espalier.auth.v1.access_pb2_grpc import ApiKeyServiceStub, GroupServiceStub, RoleServiceStub
from espalier.auth.v1.service_pb2_grpc import AuthServiceStub, UserServiceStub
from espalier.chat.v1.service_pb2_grpc import ChatServiceStub
from espalier.eval.v1.service_pb2_grpc import EvalServiceStub
from espalier.model_registry.v1.service_pb2_grpc import DeploymentServiceStub, ModelServiceStub
from espalier.prompt.v1.service_pb2_grpc import PromptServiceStub
from espalier.training_orchestrator.v1.dataset_service_pb2_grpc import DatasetServiceStub
from espalier.training_orchestrator.v1.run_service_pb2_grpc import RunServiceStub

MAX_MESSAGE_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The stubs of every public service. A service answers at its own address: use those of the one connected to."""

    channel: grpc.Channel
    auth: AuthServiceStub
    users: UserServiceStub
    roles: RoleServiceStub
    groups: GroupServiceStub
    api_keys: ApiKeyServiceStub
    datasets: DatasetServiceStub
    runs: RunServiceStub
    models: ModelServiceStub
    deployments: DeploymentServiceStub
    chat: ChatServiceStub
    evaluations: EvalServiceStub
    prompts: PromptServiceStub

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()


def connect(address: str, token: str = "", *, root_certificates: bytes | None = None, tls: bool = False) -> Connection:
    """Opens a channel to host:port; every call carries `token`. Connects at the first call, and again after a break.

    With `tls` the server's certificate is checked, against `root_certificates` (PEM) or those of the system.
    """
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.keepalive_time_ms", 30_000)]
    if tls:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates), options)
    else:
        channel = grpc.insecure_channel(address, options)
    if token:
        channel = grpc.intercept_channel(channel, _Bearer(token))
    return Connection(
        channel=channel,
        auth=AuthServiceStub(channel),
        users=UserServiceStub(channel),
        roles=RoleServiceStub(channel),
        groups=GroupServiceStub(channel),
        api_keys=ApiKeyServiceStub(channel),
        datasets=DatasetServiceStub(channel),
        runs=RunServiceStub(channel),
        models=ModelServiceStub(channel),
        deployments=DeploymentServiceStub(channel),
        chat=ChatServiceStub(channel),
        evaluations=EvalServiceStub(channel),
        prompts=PromptServiceStub(channel),
    )


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def _with_token(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._header])
