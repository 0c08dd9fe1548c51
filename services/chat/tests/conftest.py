"""Chat on a real database, with a real model server speaking OpenAI's SSE and a model registry in the test."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aiohttp import web

from espalier.chat.v1 import service_pb2 as pb
from espalier.chat.v1 import service_pb2_grpc
from espalier.model_registry.v1 import service_pb2 as registry_pb2
from espalier.model_registry.v1 import service_pb2_grpc as registry_pb2_grpc
from espalier_chat.answers import Answers
from espalier_chat.assembly import join
from espalier_chat.completions import Completions
from espalier_chat.peers import RegistryDeployments
from espalier_chat.settings import ChatSettings
from espalier_common.db import Database, new_id
from espalier_common.pagination import Paginator
from espalier_common.testing.plugin import MigratedDatabase

Script = Callable[["Stream"], Awaitable[None]]


@dataclass
class Stream:
    """One answer of the model server, as a script of the test writes it."""

    request: web.Request
    body: dict[str, Any]
    response: web.StreamResponse

    async def raw(self, data: bytes) -> None:
        await self.response.write(data)

    async def event(self, chunk: Any) -> None:
        await self.raw(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def say(self, text: str) -> None:
        await self.event({"choices": [{"index": 0, "delta": {"content": text}}]})

    async def end(self, reason: str = "stop", prompt: int = 7, completion: int = 3) -> None:
        await self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        await self.event({"choices": [], "usage": usage})
        await self.raw(b"data: [DONE]\n\n")

    def die(self) -> None:
        assert self.request.transport is not None
        self.request.transport.abort()


@dataclass
class ModelServer:
    """A model server that answers as `script` says; counts the answers whose reader went away."""

    script: Script | None = None
    status: int = 200
    refusal: Any = None
    whole: bytes | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    left: int = 0
    ids: list[str] = field(default_factory=list)
    used: dict[str, Any] = field(default_factory=dict)
    base_url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.ids.append(request.headers["X-Request-Id"])
        if self.status != 200:
            return web.json_response(self.refusal, status=self.status)
        self.running += 1
        try:
            if self.whole is not None:
                return web.Response(body=self.whole, content_type="application/json")
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            assert self.script is not None
            await self.script(Stream(request, body, response))
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.running -= 1
        return response

    async def usage(self, request: web.Request) -> web.Response:
        """What ours tells of a request that was cut; nothing where the test says nothing."""
        used = self.used.get(request.match_info["id"])
        return web.json_response(used, status=200 if used else 404)


@pytest.fixture
async def model_server() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    application = web.Application(client_max_size=64 << 20)
    application.router.add_post("/v1/chat/completions", server.handle)
    application.router.add_get("/v1/usage/{id}", server.usage)
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield server
    await runner.cleanup()


class RegistryPeer(registry_pb2_grpc.DeploymentServiceServicer):
    """DeploymentService as chat uses it."""

    def __init__(self, model_server: ModelServer) -> None:
        self.known = new_id()
        self.loading = ""
        self.tokens: list[str] = []
        self._model_server = model_server

    async def ResolveEndpoint(
        self, request: registry_pb2.ResolveEndpointRequest, context: Any
    ) -> registry_pb2.Endpoint:
        self.tokens.append(dict(context.invocation_metadata())["authorization"])
        if request.deployment_id != self.known and request.model not in {"tuned-1", self.known}:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no deployment.")
        if self.loading:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.loading)
        return registry_pb2.Endpoint(base_url=self._model_server.base_url, model="tuned-1", deployment_id=self.known)


@pytest.fixture
async def registry(model_server: ModelServer) -> AsyncIterator[RegistryPeer]:
    peer, server = RegistryPeer(model_server), grpc.aio.server()  # type: ignore[abstract]
    registry_pb2_grpc.add_DeploymentServiceServicer_to_server(peer, server)
    peer.port = server.add_insecure_port("127.0.0.1:0")  # type: ignore[attr-defined]
    await server.start()
    yield peer
    await server.stop(None)


@pytest.fixture
def database(emptied_database: MigratedDatabase) -> Database:
    """Empty for the test."""
    return emptied_database("espalier_chat")


@dataclass
class Limits:
    """What is held for answers; refuses once `refusal` is set."""

    held: dict[str, dict[str, float]] = field(default_factory=dict)
    refusal: Exception | None = None

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.held[reservation_id] = dict(amounts)


@dataclass
class Chat:
    """A running chat process and the calls that the tests make."""

    server: Any
    answers: Answers
    completions: Completions
    database: Database
    registry: RegistryPeer
    limits: Limits

    def stub(self, subject: str = "ada", scope: str = "own") -> Any:
        channel = self.server.channel(permissions=["chat.*"], subject=subject, scope=scope)
        return service_pb2_grpc.ChatServiceStub(channel)

    async def session(self, **fields: Any) -> str:
        wanted = pb.Session(deployment_id=self.registry.known, **fields)
        opened = await self.stub().CreateSession(pb.CreateSessionRequest(session=wanted))
        return str(opened.id)

    def send(self, session_id: str, text: str = "Hello?") -> Any:
        return self.stub().SendMessage(pb.SendMessageRequest(session_id=session_id, text=text))

    async def ask(self, session_id: str, text: str = "Hello?") -> pb.Message:
        """Sends and reads to the end."""
        message: pb.Message = [delta async for delta in self.send(session_id, text)][-1].message
        return message

    def resume(self, session_id: str, message_id: str, offset: int = 0) -> Any:
        request = pb.StreamMessageRequest(session_id=session_id, message_id=message_id, offset=str(offset))
        return self.stub().StreamMessage(request)

    async def messages(self, session_id: str) -> list[pb.Message]:
        return list((await self.stub().ListMessages(pb.ListMessagesRequest(session_id=session_id))).messages)

    async def settled(self, session_id: str) -> pb.Message:
        """The last message, once nothing is generated any more."""
        async with asyncio.timeout(60):
            while True:
                message = (await self.messages(session_id))[-1]
                if message.state != pb.MESSAGE_STATE_STREAMING:
                    return message
                await asyncio.sleep(0.02)


@pytest.fixture
async def new_chat(rpc_server: Any, database: Database, registry: RegistryPeer) -> AsyncIterator[Any]:
    """Factory: a chat process with these settings; several share the database as replicas do."""
    closers: list[Callable[[], Awaitable[None]]] = []

    async def create(**settings: Any) -> Chat:
        read = ChatSettings(**settings)
        deployments = RegistryDeployments(f"127.0.0.1:{registry.port}")  # type: ignore[attr-defined]
        limits = Limits()
        parts = join(read, database, limits=limits, deployments=deployments, paginator=Paginator("secret"))
        drains = [parts.answers.drain, parts.completions.drain]
        server = await rpc_server(
            parts.servicers, background=[parts.answers.run, parts.completions.run], on_drain=drains
        )
        closers.extend([parts.upstream.close, deployments.close])
        return Chat(server, parts.answers, parts.completions, database, registry, limits)

    yield create
    for close in closers:
        await close()


@pytest.fixture
async def chat(new_chat: Any) -> Chat:
    made: Chat = await new_chat()
    return made


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until a condition holds, ten seconds at most."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    return wait
