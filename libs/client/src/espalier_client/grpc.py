"""A typed gRPC client for other systems: the generated stubs over one channel that carries the token.

with connect("127.0.0.1:7002", token) as espalier:
    for run in espalier.runs.ListRuns(ListRunsRequest()).runs: ...
"""

from collections.abc import Callable
from typing import Any

import grpc

from espalier.auth.v1.access_pb2_grpc import ApiKeyServiceStub, GroupServiceStub, RoleServiceStub
from espalier.auth.v1.audit_pb2_grpc import AuditServiceStub
from espalier.auth.v1.registration_pb2_grpc import RegistrationServiceStub
from espalier.auth.v1.second_factor_pb2_grpc import SecondFactorServiceStub
from espalier.auth.v1.service_pb2_grpc import AuthServiceStub, UserServiceStub
from espalier.auth.v1.sessions_pb2_grpc import SessionServiceStub
from espalier.auth.v1.settings_pb2_grpc import SettingServiceStub
from espalier.auth.v1.usage_pb2_grpc import QuotaServiceStub, UsageServiceStub
from espalier.chat.v1.completion_pb2_grpc import CompletionServiceStub
from espalier.chat.v1.service_pb2_grpc import ChatServiceStub
from espalier.eval.v1.service_pb2_grpc import EvalServiceStub
from espalier.model_registry.v1.service_pb2_grpc import DeploymentServiceStub, ModelServiceStub
from espalier.prompt.v1.service_pb2_grpc import PromptServiceStub
from espalier.training_orchestrator.v1.dataset_service_pb2_grpc import DatasetServiceStub
from espalier.training_orchestrator.v1.run_service_pb2_grpc import RunServiceStub

MAX_MESSAGE_BYTES = 16 << 20


class Connection:
    """The stubs of the public services. A service answers at its own address: use those of the one connected to."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.auth = AuthServiceStub(channel)
        self.users = UserServiceStub(channel)
        self.sessions = SessionServiceStub(channel)
        self.second_factor = SecondFactorServiceStub(channel)
        self.registration = RegistrationServiceStub(channel)
        self.roles = RoleServiceStub(channel)
        self.groups = GroupServiceStub(channel)
        self.api_keys = ApiKeyServiceStub(channel)
        self.settings = SettingServiceStub(channel)
        self.usage = UsageServiceStub(channel)
        self.quotas = QuotaServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self.datasets = DatasetServiceStub(channel)
        self.runs = RunServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.deployments = DeploymentServiceStub(channel)
        self.chat = ChatServiceStub(channel)
        self.completions = CompletionServiceStub(channel)
        self.evaluations = EvalServiceStub(channel)
        self.prompts = PromptServiceStub(channel)

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
    return Connection(channel)


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def _with_token(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._header])
