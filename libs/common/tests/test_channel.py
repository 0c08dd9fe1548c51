"""What a channel puts on the wire, and how a service gets keys and a token of its own from auth."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from espalier.auth.v1 import resources_pb2, service_pb2, service_pb2_grpc
from espalier_common.errors import Unauthenticated, Unavailable
from espalier_common.identity import ServiceIdentity, TokenVerifier, current_principal, set_principal
from espalier_common.infra import processes
from espalier_common.public_keys import KeySet, fetch_jwks
from espalier_common.rpc.channel import open_channel, open_sync_channel
from espalier_common.rpc.server import Service, start
from espalier_common.settings import ServiceSettings
from espalier_common.telemetry import request_id_var
from espalier_common.testing.rpc import SigningKey


class Auth(service_pb2_grpc.AuthServiceServicer):
    """Keys and service tokens; the rest of auth is not asked for here."""

    def __init__(self) -> None:
        self.key = SigningKey()
        self.issued = 0
        self.lifetime = 600

    def GetJwks(self, request: Any, context: Any) -> Any:
        return service_pb2.Jwks(keys=[resources_pb2.Jwk(**key) for key in self.key.jwks()])

    def IssueServiceToken(self, request: Any, context: Any) -> Any:
        if request.secret != "right":
            raise Unauthenticated("The secret is wrong.")
        self.issued += 1
        token = self.key.token(permissions=["*"], kind="service", subject=request.service)
        return service_pb2.ServiceToken(access_token=token, expires_in=self.lifetime)

    def Login(self, request: Any, context: Any) -> Any:
        raise Unauthenticated("Not here.")

    def Refresh(self, request: Any, context: Any) -> Any:
        raise Unauthenticated("Not here.")

    def Logout(self, request: Any, context: Any) -> Any:
        raise Unauthenticated("Not here.")


class Echo:
    """Tells who calls with which request id and how long it may take."""

    def __init__(self, contract: SimpleNamespace) -> None:
        self.contract = contract

    async def Known(self, request: Any, context: Any) -> Any:
        remaining = context.time_remaining()
        text = f"{current_principal().subject} {request_id_var.get()}"
        return self.contract.Reply(text=text, number=-1 if remaining is None else round(remaining))

    async def Stream(self, request: Any, context: Any) -> Any:
        remaining = context.time_remaining()
        yield self.contract.Reply(text=current_principal().subject, number=-1 if remaining is None else 1)

    async def Watch(self, request: Any, context: Any) -> Any:
        yield self.contract.Reply()

    Open = Guarded = Slow = Known


@pytest.fixture
def auth() -> Auth:
    return Auth()


@pytest.fixture
async def auth_address(rpc_server: Any, auth: Auth) -> str:
    descriptor = service_pb2.DESCRIPTOR.services_by_name["AuthService"]
    server = await rpc_server([(service_pb2_grpc.add_AuthServiceServicer_to_server, auth, descriptor)])
    return str(server.address)


@pytest.fixture
async def echo(contract: SimpleNamespace, auth_address: str) -> AsyncIterator[str]:
    """A service that gets the keys from auth, as a real one does."""
    settings = ServiceSettings(listen="127.0.0.1:0", services={"auth": auth_address})
    service = Service(
        name="echo", package="echo", settings=settings, servicers=[(contract.add, Echo(contract), contract.service)]
    )
    running = await start(service)
    yield f"127.0.0.1:{running.port}"
    await running.stop(grace=0)


@pytest.fixture
def identity(auth_address: str) -> ServiceIdentity:
    return ServiceIdentity(auth_address, name="eval", secret="right")


async def test_outside_a_call_the_service_speaks_for_itself(
    echo: str, contract: SimpleNamespace, identity: ServiceIdentity, auth: Auth
) -> None:
    async with open_channel(echo, identity=identity) as channel:
        for _ in range(3):
            assert (await contract.call(channel, "Known")(contract.Ask(name="ab"))).text.split()[0] == "eval"
    assert auth.issued == 1


async def test_inside_a_call_the_user_and_the_request_id_travel_along(
    echo: str, contract: SimpleNamespace, identity: ServiceIdentity, auth: Auth
) -> None:
    token = auth.key.token(permissions=["*"], subject="ann")
    set_principal(TokenVerifier(auth.key.jwks).verify(token))
    request_id_var.set("r-7")
    async with open_channel(echo, identity=identity) as channel:
        assert (await contract.call(channel, "Known")(contract.Ask(name="ab"))).text == "ann r-7"
        assert (await contract.call(channel, "Stream")(contract.Ask(name="ab")).read()).text == "ann"

    def blocking() -> str:
        with open_sync_channel(echo, identity=identity) as channel:
            reply = contract.call(channel, "Known")(contract.Ask(name="ab"))
            streamed = next(iter(contract.call(channel, "Stream")(contract.Ask(name="ab"))))
            return f"{reply.text} {streamed.text}"

    assert await asyncio.to_thread(blocking) == "ann r-7 ann"
    assert auth.issued == 0


async def test_unary_calls_have_a_deadline_and_streams_none(
    echo: str, contract: SimpleNamespace, identity: ServiceIdentity
) -> None:
    async with open_channel(echo, identity=identity, timeout=7) as channel:
        assert (await contract.call(channel, "Known")(contract.Ask(name="ab"))).number == 7
        assert (await contract.call(channel, "Known")(contract.Ask(name="ab"), timeout=3)).number == 3
        assert (await contract.call(channel, "Stream")(contract.Ask(name="ab")).read()).number == -1


async def test_without_identity_nothing_is_claimed(echo: str, contract: SimpleNamespace) -> None:
    async with open_channel(echo) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await contract.call(channel, "Known")(contract.Ask(name="ab"))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_service_that_is_away_is_told_at_once(contract: SimpleNamespace) -> None:
    started = time.monotonic()
    async with open_channel(f"127.0.0.1:{processes.free_port()}", timeout=120) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await contract.call(channel, "Open")(contract.Ask(name="ab"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 60


async def test_a_service_that_is_too_busy_to_take_a_connection_at_once_is_waited_for(
    echo: str, contract: SimpleNamespace, identity: ServiceIdentity
) -> None:
    async with behind_delay(echo, seconds=0.5) as address, open_channel(address, identity=identity) as channel:
        assert (await contract.call(channel, "Known")(contract.Ask(name="ab"))).text


@asynccontextmanager
async def behind_delay(address: str, *, seconds: float) -> AsyncIterator[str]:
    """Where connections to the address are taken at once, and nothing is said on them for so long."""
    host, _, port = address.partition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_the_token_is_renewed_before_it_expires_and_kept_while_auth_is_away(
    auth: Auth, auth_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ServiceIdentity(auth_address, name="eval", secret="right")
    first = await asyncio.to_thread(identity.token)
    assert identity.cached() == first
    real = time.monotonic
    monkeypatch.setattr("espalier_common.identity.time.monotonic", lambda: real() + 401)
    assert (identity.cached(), identity.valid()) == (None, first)
    identity._secret = "wrong"
    assert await asyncio.to_thread(identity.token) == first
    identity._secret = "right"
    monkeypatch.setattr("espalier_common.identity.time.monotonic", lambda: real() + 407)
    renewed = await asyncio.to_thread(identity.token)
    assert renewed != first
    assert identity.valid() == renewed
    monkeypatch.setattr("espalier_common.identity.time.monotonic", lambda: real() + 407 + 600)
    assert identity.valid() is None


async def test_a_refused_secret_is_told(auth_address: str) -> None:
    identity = ServiceIdentity(auth_address, name="eval", secret="wrong")
    with pytest.raises(Unavailable, match=r"Auth gave eval no token: The secret is wrong\."):
        await asyncio.to_thread(identity.token)


async def test_keys_come_from_auth(auth: Auth, auth_address: str) -> None:
    verifier = TokenVerifier(fetch_jwks(auth_address))
    token = auth.key.token(permissions=["a.b"])
    principal = await asyncio.to_thread(verifier.verify, token)
    assert principal.may("a.b")


async def test_who_calls_while_auth_is_still_starting_is_not_refused(auth: Auth) -> None:
    address, asked = f"127.0.0.1:{processes.free_port()}", asyncio.Event()
    loop, fetch = asyncio.get_running_loop(), fetch_jwks(address, timeout=60)

    def ask() -> Any:
        loop.call_soon_threadsafe(asked.set)
        return fetch()

    verdict = asyncio.create_task(asyncio.to_thread(TokenVerifier(ask).verify, auth.key.token(permissions=["a.b"])))
    await asked.wait()
    server = grpc.aio.server()
    service_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
    server.add_insecure_port(address)
    await server.start()
    assert (await verdict).may("a.b")
    await server.stop(0)


async def test_without_auth_all_are_refused_together_and_none_waits_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeySet, "FAILURE_PAUSE", 3600.0)
    fetch, questions = fetch_jwks(f"127.0.0.1:{processes.free_port()}", timeout=0.5), []

    def ask() -> Any:
        questions.append(1)
        return fetch()

    verifier, token = TokenVerifier(ask), SigningKey().token(permissions=["a.b"])
    answers = await asyncio.gather(
        *(asyncio.to_thread(verifier.verify, token) for _ in range(8)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [Unavailable] * 8
    assert len(questions) == 1
