"""The edge of a real server: request id, identity, permission, validation, deadline, errors, drain."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from espalier_common import errors
from espalier_common.identity import current_principal, find_principal
from espalier_common.revocations import Revocations
from espalier_common.rpc.context import current_request_id
from espalier_common.rpc.status import from_rpc_error
from espalier_common.settings import ServiceSettings, SettingsError
from espalier_common.testing.rpc import SigningKey, start_rpc_server


class Servicer:
    def __init__(self, contract: SimpleNamespace) -> None:
        self.contract = contract
        self.closed = asyncio.Event()

    def Open(self, request: Any, context: Any) -> Any:
        who = find_principal()
        thread = threading.current_thread().name
        return self.contract.Reply(text=f"{who.subject if who else '-'} {current_request_id()} {thread}")

    async def Known(self, request: Any, context: Any) -> Any:
        return self.contract.Reply(text=current_principal().subject)

    def Guarded(self, request: Any, context: Any) -> Any:
        if request.name == "missing":
            raise errors.NotFound("thing", "42")
        if request.name == "busy":
            raise errors.ResourceExhausted("Slow down.", retry_after=1.5)
        raise RuntimeError("the secret cause")

    async def Slow(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(60)

    async def Stream(self, request: Any, context: Any) -> Any:
        for number in range(3):
            yield self.contract.Reply(number=number, text=current_principal().subject)
        if request.name == "missing":
            raise errors.NotFound("thing", "42")

    async def Watch(self, request: Any, context: Any) -> Any:
        try:
            yield self.contract.Reply(number=1)
            await asyncio.sleep(60)
        finally:
            self.closed.set()


@pytest.fixture
def servicer(contract: SimpleNamespace) -> Servicer:
    return Servicer(contract)


@pytest.fixture
async def server(rpc_server: Any, contract: SimpleNamespace, servicer: Servicer) -> Any:
    return await rpc_server([(contract.add, servicer, contract.service)])


@pytest.fixture
def call(server: Any, contract: SimpleNamespace) -> Any:
    """call("Open", channel, name="ab") → the answer, or the error of ours that it carries."""

    async def do(
        rpc: str, channel: Any, /, name: str = "ab", timeout: float = 60, metadata: Any = (), **ask: Any
    ) -> Any:
        try:
            method = contract.call(channel, rpc)
            return await method(contract.Ask(name=name, **ask), timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    return do


@pytest.fixture
def ask(contract: SimpleNamespace) -> Any:
    """A request that passes validation."""

    def make(name: str = "ab") -> Any:
        return contract.Ask(name=name)

    return make


async def test_a_plain_handler_runs_in_a_thread_and_knows_caller_and_request_id(server: Any, call: Any) -> None:
    channel = server.channel(permissions=[], subject="u1")
    reply = await call("Open", channel, metadata=[("x-request-id", "r-1")])
    subject, request_id, thread = reply.text.split()
    assert (subject, request_id) == ("u1", "r-1")
    assert thread.startswith("rpc")


async def test_a_harmful_request_id_is_replaced(server: Any, call: Any) -> None:
    reply = await call("Open", server.channel(), metadata=[("x-request-id", "a {b} c")])
    assert len(reply.text.split()[1]) == 16


async def test_without_a_token_only_public_calls_pass(server: Any, call: Any) -> None:
    assert (await call("Open", server.channel())).text.startswith("- ")
    with pytest.raises(errors.Unauthenticated):
        await call("Known", server.channel())


async def test_a_public_call_ignores_a_bad_token(server: Any, call: Any) -> None:
    reply = await call("Open", server.channel(), metadata=[("authorization", "Bearer nonsense")])
    assert reply.text.startswith("- ")


async def test_a_token_of_another_key_is_refused(server: Any, call: Any) -> None:
    forged = SigningKey().token(permissions=["*"])
    with pytest.raises(errors.Unauthenticated):
        await call("Known", server.channel(), metadata=[("authorization", f"Bearer {forged}")])


async def test_the_permission_missing_is_named(server: Any, call: Any) -> None:
    with pytest.raises(errors.PermissionDenied) as caught:
        await call("Guarded", server.channel(permissions=["tests.things.write"]))
    assert caught.value.permission == "tests.things.read"


@pytest.mark.parametrize("granted", ["*", "tests.*", "tests.things.*", "tests.things.read"])
async def test_a_wildcard_grants(server: Any, call: Any, granted: str) -> None:
    with pytest.raises(errors.NotFound):
        await call("Guarded", server.channel(permissions=[granted]), name="missing")


async def test_errors_keep_type_reason_and_details_on_the_wire(server: Any, call: Any) -> None:
    channel = server.channel(permissions=["*"])
    with pytest.raises(errors.NotFound) as missing:
        await call("Guarded", channel, name="missing")
    assert (missing.value.resource, missing.value.id) == ("thing", "42")
    with pytest.raises(errors.ResourceExhausted) as busy:
        await call("Guarded", channel, name="busy")
    assert busy.value.retry_after == 1.5
    assert busy.value.message == "Slow down."


async def test_the_cause_of_a_defect_stays_here(server: Any, call: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.Internal) as caught:
        await call("Guarded", server.channel(permissions=["*"]), name="defect")
    assert "secret cause" not in caught.value.message
    assert "the secret cause" in caplog.text


async def test_all_violations_come_at_once(server: Any, call: Any) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await call("Open", server.channel(), name="X", id="no", count=99)
    assert {violation.field for violation in caught.value.violations} == {"name", "id", "count"}


async def test_more_findings_than_a_header_holds_are_counted(server: Any, call: Any, contract: SimpleNamespace) -> None:
    children = [contract.Ask(name="!" * 200) for _ in range(80)]
    with pytest.raises(errors.InvalidArgument) as caught:
        await call("Open", server.channel(), children=children)
    assert caught.value.violations[-1].reason == "MORE"


@pytest.mark.parametrize("rpc", ["Open", "Guarded", "Watch"])
async def test_bytes_that_are_no_message_are_a_wrong_request(server: Any, contract: SimpleNamespace, rpc: str) -> None:
    path = f"/{contract.service.full_name}/{rpc}"
    channel = server.channel(permissions=["tests.*"])
    call = (channel.unary_stream if rpc == "Watch" else channel.unary_unary)(path)(b"\xff" * 9)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (anext(aiter(call)) if rpc == "Watch" else call)
    assert from_rpc_error(refused.value).code == "INVALID_ARGUMENT"


async def test_permission_comes_before_validation(server: Any, call: Any) -> None:
    with pytest.raises(errors.PermissionDenied):
        await call("Guarded", server.channel(permissions=[]), name="")


async def test_a_deadline_ends_the_call(server: Any, call: Any) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await call("Slow", server.channel(), timeout=0.1)


async def test_a_stream_carries_messages_then_its_error(server: Any, contract: SimpleNamespace, ask: Any) -> None:
    stream = contract.call(server.channel(permissions=["*"], subject="u2"), "Stream")(ask("missing"))
    numbers = []
    for _ in range(3):
        reply = await stream.read()
        assert reply.text == "u2"
        numbers.append(reply.number)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert numbers == [0, 1, 2]
    assert isinstance(from_rpc_error(caught.value), errors.NotFound)


async def test_a_stream_needs_its_permission(server: Any, contract: SimpleNamespace, ask: Any) -> None:
    stream = contract.call(server.channel(permissions=[]), "Stream")(ask())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_client_that_goes_away_ends_the_handler(
    server: Any, contract: SimpleNamespace, servicer: Servicer, ask: Any
) -> None:
    stream = contract.call(server.channel(), "Watch")(ask())
    await stream.read()
    stream.cancel()
    assert await asyncio.wait_for(servicer.closed.wait(), 60)


async def test_draining_ends_a_resumable_stream_at_once(
    contract: SimpleNamespace, servicer: Servicer, ask: Any
) -> None:
    server = await start_rpc_server([(contract.add, servicer, contract.service)])
    stream = contract.call(server.channel(), "Watch")(ask())
    await stream.read()
    stopping = asyncio.create_task(server.running.stop(grace=300))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(stopping, 60)
    assert servicer.closed.is_set()


async def test_a_service_with_an_unguarded_rpc_does_not_start(contract: SimpleNamespace, servicer: Servicer) -> None:
    with pytest.raises(SettingsError, match=r"LaxService\.Forgotten does not say what it requires"):
        await start_rpc_server([(contract.add, servicer, contract.lax)])


async def test_a_service_with_a_missing_handler_does_not_start(contract: SimpleNamespace) -> None:
    with pytest.raises(SettingsError, match=r"does not implement .*TestService\.Open"):
        await start_rpc_server([(contract.add, object(), contract.service)])


async def test_a_taken_port_is_told_with_its_setting(
    server: Any, contract: SimpleNamespace, servicer: Servicer
) -> None:
    settings = ServiceSettings(listen=server.address)
    with pytest.raises(SettingsError, match=rf"{server.address}.*ESPALIER_LISTEN"):
        await start_rpc_server([(contract.add, servicer, contract.service)], settings=settings)


async def test_health_follows_readiness(rpc_server: Any, contract: SimpleNamespace, servicer: Servicer) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    well = threading.Event()
    server = await rpc_server([(contract.add, servicer, contract.service)], readiness={"thing": well.is_set})
    health = health_pb2_grpc.HealthStub(server.channel())

    async def status_becomes(wanted: Any) -> None:
        async with asyncio.timeout(60):
            while (await health.Check(health_pb2.HealthCheckRequest())).status != wanted:
                await asyncio.sleep(0.02)

    await status_becomes(health_pb2.HealthCheckResponse.NOT_SERVING)
    live = await health.Check(health_pb2.HealthCheckRequest(service="live"))
    assert live.status == health_pb2.HealthCheckResponse.SERVING
    well.set()
    await status_becomes(health_pb2.HealthCheckResponse.SERVING)


async def test_a_stream_ends_when_the_token_is_taken_back(
    server: Any, contract: SimpleNamespace, ask: Any, servicer: Servicer
) -> None:
    revocations = server.verifier.revocations = Revocations(dict)
    lost = contract.call(server.channel(permissions=["*"], subject="u1"), "Watch")(ask())
    kept = contract.call(server.channel(permissions=["*"], subject="u2"), "Watch")(ask())
    await lost.read()
    await kept.read()
    revocations.put({"u1": time.time() + 1})

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(lost.read(), 60)
    assert from_rpc_error(ended.value).reason == "TOKEN_REVOKED"
    await asyncio.wait_for(servicer.closed.wait(), 60)
    assert not kept.done()
    kept.cancel()
