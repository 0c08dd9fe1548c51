"""Small servicers of the generated services. They implement the port and remember what reached them."""

import asyncio
import threading
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from espalier.auth.v1 import audit_pb2, oidc_pb2
from espalier.auth.v1 import audit_pb2_grpc as audit_grpc
from espalier.auth.v1 import oidc_pb2_grpc as oidc_grpc
from espalier.auth.v1 import resources_pb2 as auth_resources
from espalier.auth.v1 import service_pb2 as auth_pb2
from espalier.auth.v1 import service_pb2_grpc as auth_grpc
from espalier.chat.v1 import completion_pb2, completion_pb2_grpc
from espalier.chat.v1 import service_pb2 as chat_pb2
from espalier.chat.v1 import service_pb2_grpc as chat_grpc
from espalier.model_registry.v1 import resources_pb2 as registry_pb2
from espalier.model_registry.v1 import service_pb2 as registry_service_pb2
from espalier.model_registry.v1 import service_pb2_grpc as registry_grpc
from espalier.training_orchestrator.v1 import dataset_pb2, dataset_service_pb2, run_pb2, run_service_pb2
from espalier.training_orchestrator.v1 import dataset_service_pb2_grpc as datasets_grpc
from espalier.training_orchestrator.v1 import run_service_pb2_grpc as runs_grpc
from espalier_common import errors

RUN_ID = "018f6e1c-0b0a-7c3e-9d5a-0242ac120003"
REFRESH = "refresh-1"


class _Recorder:
    """Keeps what reached it. RPCs that a fake does not have are added by `_complete`: the server insists on each."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []

    def note(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})


def _complete(servicer: type, descriptor: Any) -> None:
    """Adds handlers that answer with an empty message where the fake has none of its own."""
    from google.protobuf.message_factory import GetMessageClass

    for method in descriptor.methods:
        if method.name in vars(servicer):
            continue
        reply = GetMessageClass(method.output_type)
        if method.server_streaming:

            async def stream(self: Any, request: Any, context: Any, reply: Any = reply) -> Any:
                self.note(request, context)
                yield reply()

            setattr(servicer, method.name, stream)
        else:

            def unary(self: Any, request: Any, context: Any, reply: Any = reply) -> Any:
                self.note(request, context)
                return reply()

            setattr(servicer, method.name, unary)


class AuthFake(_Recorder):
    """One user: ada / correct horse battery."""

    def __init__(self) -> None:
        super().__init__()
        self.refresh_tokens = {REFRESH}
        self.access_token = "access-1"
        self.keys: list[dict[str, str]] = []
        self.may_refresh = threading.Event()
        self.may_refresh.set()

    def GetJwks(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return auth_pb2.Jwks(keys=[auth_resources.Jwk(**key) for key in self.keys])

    def Login(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        if (request.username, request.password) != ("ada", "correct horse battery"):
            raise errors.Unauthenticated("Username or password is wrong.")
        pair = self._pair(REFRESH)
        pair.device_token = "device-1"
        return pair

    def Refresh(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        assert self.may_refresh.wait(60)
        if request.refresh_token not in self.refresh_tokens:
            raise errors.Unauthenticated("The session has ended; sign in again.")
        self.refresh_tokens = {"refresh-2"}
        return self._pair("refresh-2")

    def Logout(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        self.refresh_tokens.discard(request.refresh_token)
        return Empty()

    def _pair(self, refresh: str) -> Any:
        return auth_resources.TokenPair(
            access_token=self.access_token, refresh_token=refresh, token_type="Bearer", expires_in=600
        )


class OidcFake(_Recorder):
    """One provider, which vouches for everybody."""

    def FinishOidcLogin(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return auth_resources.TokenPair(
            access_token="access-o", refresh_token="refresh-o", token_type="Bearer", expires_in=600
        )

    def EndProviderSessions(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        if request.logout_token != "good":
            raise errors.Unauthenticated("What came as a logout token cannot be trusted.")
        return Empty()


class UsersFake(_Recorder):
    def UpdateUser(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return request.user

    def GetMe(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return auth_pb2.Me(user=auth_resources.User(username="ada"), permissions=["*"], scope="all")


class RunsFake(_Recorder):
    """Answers, fails or streams as the test sets it up."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.fail_after = -1
        self.points = 3
        self.pause = 0.0
        self.hold = False
        self.padding = 0
        self.sent = 0
        self.cancelled = asyncio.Event()

    def GetRun(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        if self.error is not None:
            raise self.error
        return run_pb2.Run(
            id=request.run_id,
            name="first",
            state=run_pb2.RUN_STATE_RUNNING,
            create_time=Timestamp(seconds=1_800_000_000, nanos=500_000_000),
        )

    def ListRuns(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return run_service_pb2.ListRunsResponse(runs=[run_pb2.Run(id=RUN_ID)], next_page_token="more")

    def CreateRun(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return request.run

    def ListMetrics(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        points = [run_pb2.MetricPoint(step=step, values={"train/loss": step / 3}) for step in range(10_000)]
        return run_service_pb2.ListMetricsResponse(points=points)

    async def WatchRun(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        try:
            if self.error is not None and self.fail_after < 0:
                raise self.error
            first = int(request.cursor or 0) + 1
            for number in range(first, first + self.points):
                if self.error is not None and number - first == self.fail_after:
                    raise self.error
                await asyncio.sleep(self.pause)
                self.sent += 1
                run = run_pb2.Run(id=request.run_id, name="x" * self.padding)
                yield run_service_pb2.WatchRunResponse(cursor=str(number), run=run)
            while self.hold:
                await asyncio.sleep(0.05)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def WatchLogs(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        yield run_service_pb2.LogChunk(text="line\n", offset=request.offset, next_offset=request.offset + 5, end=True)


class DatasetsFake(_Recorder):
    def CreateDataset(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        return dataset_pb2.Dataset(id=RUN_ID, name=request.dataset.name)


class ChatFake(_Recorder):
    async def SendMessage(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        for number, word in enumerate(request.text.split(), 1):
            yield chat_pb2.MessageDelta(message_id=RUN_ID, offset=str(number), text=word)


class CompletionsFake(_Recorder):
    """Answers as the test sets it up: these bytes of this kind, then the error if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.content_type = "text/event-stream"
        self.pieces: list[bytes] = []
        self.error: Exception | None = None
        self.hold = False
        self.sent = 0
        self.cancelled = asyncio.Event()

    async def CreateCompletion(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        content_type = self.content_type
        try:
            for piece in self.pieces:
                yield completion_pb2.CreateCompletionResponse(content=piece, content_type=content_type)
                self.sent += 1
                content_type = ""
            while self.hold:
                await asyncio.sleep(0.05)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error


class DeploymentsFake(_Recorder):
    """Two deployments that answer, on two pages, and one that loads."""

    def __init__(self) -> None:
        super().__init__()
        self.deployments = [
            registry_pb2.Deployment(
                id=f"018f6e1c-0b0a-7c3e-9d5a-0242ac12000{number}",
                name=name,
                state=state,
                message="Being launched.",
                create_time=Timestamp(seconds=1_800_000_000),
            )
            for number, (name, state) in enumerate(
                [
                    ("mine", registry_pb2.DEPLOYMENT_STATE_READY),
                    ("yours", registry_pb2.DEPLOYMENT_STATE_READY),
                    ("loading", registry_pb2.DEPLOYMENT_STATE_STARTING),
                    ("gone", registry_pb2.DEPLOYMENT_STATE_STOPPED),
                ]
            )
        ]

    def ListDeployments(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        wanted = [each for each in self.deployments if each.state == request.state or not request.state]
        wanted = [each for each in wanted if each.name == request.name or not request.name]
        first = int(request.page_token or 0)
        token = str(first + 1) if first + 1 < len(wanted) else ""
        return registry_service_pb2.ListDeploymentsResponse(
            deployments=wanted[first : first + 1], next_page_token=token
        )

    def GetDeployment(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        for each in self.deployments:
            if each.id == request.deployment_id:
                return each
        raise errors.NotFound("deployment", request.deployment_id)


class AuditFake(_Recorder):
    """Streams the events that the test sets up; fails after them when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[audit_pb2.AuditEvent] = []
        self.error: Exception | None = None

    async def ExportAuditEvents(self, request: Any, context: Any) -> Any:
        self.note(request, context)
        for event in self.events:
            yield event
        if self.error is not None:
            raise self.error


def new_fakes() -> dict[str, Any]:
    """One of each."""
    return {
        "auth": AuthFake(),
        "oidc": OidcFake(),
        "users": UsersFake(),
        "runs": RunsFake(),
        "datasets": DatasetsFake(),
        "chat": ChatFake(),
        "completions": CompletionsFake(),
        "deployments": DeploymentsFake(),
        "audit": AuditFake(),
    }


def servicers(fakes: dict[str, Any]) -> list[Any]:
    """Entries for the test server."""
    return [
        _entry(auth_grpc.add_AuthServiceServicer_to_server, fakes["auth"], auth_pb2, "AuthService"),
        _entry(auth_grpc.add_UserServiceServicer_to_server, fakes["users"], auth_pb2, "UserService"),
        _entry(oidc_grpc.add_OidcServiceServicer_to_server, fakes["oidc"], oidc_pb2, "OidcService"),
        _entry(runs_grpc.add_RunServiceServicer_to_server, fakes["runs"], run_service_pb2, "RunService"),
        _entry(
            datasets_grpc.add_DatasetServiceServicer_to_server, fakes["datasets"], dataset_service_pb2, "DatasetService"
        ),
        _entry(audit_grpc.add_AuditServiceServicer_to_server, fakes["audit"], audit_pb2, "AuditService"),
        _entry(chat_grpc.add_ChatServiceServicer_to_server, fakes["chat"], chat_pb2, "ChatService"),
        _entry(
            completion_pb2_grpc.add_CompletionServiceServicer_to_server,
            fakes["completions"],
            completion_pb2,
            "CompletionService",
        ),
        _entry(
            registry_grpc.add_DeploymentServiceServicer_to_server,
            fakes["deployments"],
            registry_service_pb2,
            "DeploymentService",
        ),
    ]


def _entry(add: Any, fake: Any, module: Any, name: str) -> Any:
    descriptor = module.DESCRIPTOR.services_by_name[name]
    _complete(type(fake), descriptor)
    return add, fake, descriptor
