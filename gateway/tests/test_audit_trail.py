"""What the gateway itself refuses and changes is told to the audit log, and a flood of it makes few events."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import orjson
import pytest
from nats.js.errors import NotFoundError

from espalier.auth.v1 import audit_pb2
from espalier_common.bus import AUDIT, Bus
from espalier_common.errors import Unauthenticated, Unavailable
from espalier_common.identity import Principal
from espalier_common.nats_client import client_type
from espalier_gateway import audit_trail
from espalier_gateway.audit_trail import AuditTrail
from espalier_gateway.clients import Clients
from espalier_gateway.errors import CsrfRefused
from espalier_gateway.exchange import Exchange
from espalier_gateway.settings import GatewaySettings

from .fakes import RUN_ID
from .running import StartGateway

OCTETS = {"content-type": "application/octet-stream"}
REFUSED, DONE = audit_pb2.AUDIT_RESULT_REFUSED, audit_pb2.AUDIT_RESULT_DONE


class Kept:
    """Keeps what is published, or is away."""

    def __init__(self) -> None:
        self.events: list[audit_pb2.AuditEvent] = []
        self.is_away = False

    async def publish(self, subject: str, payload: bytes, *, msg_id: str) -> None:
        if self.is_away:
            raise Unavailable("away")
        assert subject == "espalier.gateway.audit"
        event = audit_pb2.AuditEvent.FromString(payload)
        assert event.id == msg_id
        self.events.append(event)

    def take(self) -> list[audit_pb2.AuditEvent]:
        taken, self.events = self.events, []
        return taken


class Clock:
    """Goes on when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trail(kept: Kept, clock: Clock) -> AuditTrail:
    return AuditTrail(Clients(GatewaySettings(listen="127.0.0.1:8080"), None), kept, clock=clock)


def refuse(
    trail: AuditTrail,
    *,
    address: str = "192.0.2.1",
    error: Any = None,
    path: str = "/api/v1/users",
    method: str = "POST",
    caller: Principal | None = None,
) -> None:
    scope = {"type": "http", "method": method, "path": path, "headers": [], "client": (address, 1)}
    found = Exchange("request-1", route="espalier.auth.v1.UserService.CreateUser", error=error or CsrfRefused("no"))
    found.caller = caller
    trail.note(scope, found, 403)


async def test_the_first_refusal_is_told_at_once_and_the_others_seconds_later_by_their_number(
    trail: AuditTrail, kept: Kept, clock: Clock
) -> None:
    refuse(trail)
    await trail.tell()
    [first] = kept.take()
    assert (first.action, first.target) == ("espalier.auth.v1.UserService/CreateUser", "users")
    assert (first.result, first.reason, first.address) == (REFUSED, "CSRF_REFUSED", "192.0.2.1")
    assert first.request_id == "request-1"
    for _ in range(1000):
        refuse(trail)
    await trail.tell()
    assert not kept.take()
    clock.now += 5
    await trail.tell()
    [more] = kept.take()
    assert orjson.loads(more.after) == {"again": 1000, "seconds": 5}
    assert (more.action, more.reason, more.address) == (first.action, first.reason, first.address)
    for _ in range(7):
        refuse(trail)
    clock.now += 56
    await trail.tell()
    [more] = kept.take()
    assert orjson.loads(more.after) == {"again": 7, "seconds": 56}
    clock.now += 61
    await trail.tell()
    assert not kept.take()


async def test_another_reason_address_or_action_is_told_apart(trail: AuditTrail, kept: Kept) -> None:
    refuse(trail)
    refuse(trail, address="192.0.2.2")
    refuse(trail, error=Unauthenticated("no"))
    await trail.tell()
    assert len(kept.take()) == 3


async def test_a_known_caller_is_told_with_all_that_he_wanted_and_others_make_up_no_events(
    trail: AuditTrail, kept: Kept
) -> None:
    vera = Principal("vera", name="vera", kind="user", roles=(), permissions=frozenset(), scope="own")
    for path in ("/api/v1/files/1", "/api/v1/files/2"):
        refuse(trail, path=path, method="GET", caller=vera)
        refuse(trail, path=path, method="DELETE", caller=vera)
        refuse(trail, path=path)
    await trail.tell()
    events = kept.take()
    assert [event.target for event in events if event.actor_id] == ["files/1", "files/1", "files/2", "files/2"]
    assert len(events) == 5


async def test_a_flood_from_many_addresses_makes_few_events_and_little_memory(
    trail: AuditTrail, kept: Kept, clock: Clock
) -> None:
    for number in range(20_000):
        refuse(trail, address=f"2001:db8::{number:x}")
    assert len(trail._window.kinds) == audit_trail.MAX_KINDS
    assert len(trail._window.left_out) == 1
    clock.now += 60
    await trail.tell()
    events = kept.take()
    assert len(events) == audit_trail.MAX_KINDS + 1
    assert events[-1].reason == "MORE_REFUSALS"
    assert orjson.loads(events[-1].after)["count"] == 20_000 - audit_trail.MAX_KINDS


async def test_what_makes_many_events_is_told_less_often(trail: AuditTrail, kept: Kept, clock: Clock) -> None:
    told = 0
    for _ in range(600):
        for number in range(audit_trail.MAX_KINDS):
            refuse(trail, address=f"2001:db8::{number:x}")
        clock.now += 1
        await trail.tell()
        told += len(kept.take())
    assert told <= 10 * (audit_trail.MAX_KINDS + 60 * audit_trail.EVENTS_A_SECOND) + 2 * audit_trail.MAX_KINDS


async def test_a_telling_that_fails_and_is_tried_again_counts_once(trail: AuditTrail, kept: Kept, clock: Clock) -> None:
    refuse(trail)
    await trail.tell()
    refuse(trail)
    kept.is_away, clock.now = True, clock.now + 5
    with pytest.raises(Unavailable):
        await trail.tell()
    [waiting] = trail._waiting
    refuse(trail)
    kept.is_away = False
    await trail.tell()
    _first, again = kept.take()
    assert again.id == waiting.id
    clock.now += 5
    await trail.tell()
    [more] = kept.take()
    assert [orjson.loads(each.after)["again"] for each in (again, more)] == [1, 1]


async def test_nothing_is_lost_while_the_bus_is_away_and_the_minute_lasts_so_long(
    trail: AuditTrail, kept: Kept, clock: Clock
) -> None:
    kept.is_away = True
    for _ in range(5):
        refuse(trail)
        clock.now += 60
        with pytest.raises(Unavailable):
            await trail.tell()
    kept.is_away = False
    await trail.tell()
    first, more = kept.take()
    assert orjson.loads(first.after)["status"] == 403
    assert orjson.loads(more.after) == {"again": 4, "seconds": 300}


async def test_what_is_counted_is_told_at_the_end(trail: AuditTrail, kept: Kept) -> None:
    refuse(trail)
    refuse(trail)
    await trail.close()
    assert len(kept.take()) == 2


class Log:
    """Reads what the gateway tells, over the bus."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def next(self, **wanted: Any) -> audit_pb2.AuditEvent:
        """The next event that has these values; those before it are dropped."""
        async with asyncio.timeout(60):
            while True:
                [message] = await self._subscription.fetch(1, timeout=60)
                await message.ack()
                event = audit_pb2.AuditEvent.FromString(message.data)
                if all(getattr(event, name) == value for name, value in wanted.items()):
                    return event


async def remove_the_stream(nats_url: str) -> None:
    """Each event has one reader, so whoever reads all of a service's on the same server must be gone."""
    client = client_type()()
    await client.connect(nats_url)
    with suppress(NotFoundError):
        await client.jetstream().delete_stream(AUDIT.name)
    await client.close()


@pytest.fixture
async def log(nats_url: str) -> Any:
    await remove_the_stream(nats_url)
    bus = Bus(nats_url, name="auth")
    await bus.start()
    await bus.wait_connected()
    try:
        yield Log(await bus.subscribe(AUDIT, durable="gateway-test", subjects=["espalier.gateway.audit"]))
    finally:
        await bus.close()
        await remove_the_stream(nats_url)


async def test_refusals_of_each_kind_reach_the_bus(start_gateway: StartGateway, nats_url: str, log: Log) -> None:
    gateway = await start_gateway(nats_url=nats_url, max_body_bytes=1024)
    client = gateway.client
    foreign = await client.post("/api/v1/auth/login", json={}, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    event = await log.next(reason="ORIGIN_REFUSED")
    assert (event.action, event.service, event.address) == ("gateway/request", "gateway", "127.0.0.1")
    assert event.request_id == foreign.headers["x-request-id"]
    assert (await client.get("/healthz", headers={"host": "rebound.example"})).status_code == 200
    assert (await client.get("/api/v1/me", headers={"host": "rebound.example"})).status_code == 400
    await log.next(reason="HOST_REFUSED")
    broken = await client.get("/api/v1/users", headers={"authorization": "Basic c2VjcmV0"})
    assert broken.status_code == 401
    event = await log.next(reason="UNAUTHENTICATED")
    assert (event.action, event.target) == ("espalier.auth.v1.UserService/ListUsers", "users")
    assert "c2VjcmV0" not in str(event)
    large = await gateway.client_for().post("/api/v1/users", content=b"{" + b" " * 2000 + b"}")
    assert large.status_code == 413
    assert orjson.loads((await log.next(reason="BODY_TOO_LARGE")).after) == {"method": "POST", "status": 413}
    lacking = await gateway.client_for(permissions=("none",)).post("/api/v1/files", content=b"x")
    assert lacking.status_code == 403
    event = await log.next(reason="PERMISSION_DENIED")
    assert event.action == "gateway/api/v1/files"
    assert event.actor_id


async def test_files_that_are_taken_and_deleted_are_told_with_who_did_it(
    start_gateway: StartGateway, nats_url: str, log: Log
) -> None:
    gateway = await start_gateway(nats_url=nats_url)
    client = gateway.client_for()
    upload = await client.post("/api/v1/files?filename=rows.jsonl", content=b"{}", headers=OCTETS)
    assert upload.status_code == 201, upload.text
    event = await log.next(action="gateway/api/v1/files", result=DONE)
    where = upload.headers["location"]
    assert event.actor_id
    assert event.target == where.removeprefix("/api/v1/")
    assert (await client.get(where)).status_code == 200
    assert (await client.delete(where)).status_code == 204
    event = await log.next(action="gateway/api/v1/files/{upload_id}", result=DONE)
    assert event.target == where.removeprefix("/api/v1/")


async def test_what_a_service_refuses_is_told_by_the_service_alone(
    start_gateway: StartGateway, nats_url: str, log: Log
) -> None:
    gateway = await start_gateway(nats_url=nats_url)
    client = gateway.client_for(permissions=("none",))
    for path in ("/api/v1/users", f"/api/v1/training/runs/{RUN_ID}:watch", "/api/v1/audit-events:export?format=csv"):
        answer: httpx.Response = await client.get(path)
        assert answer.status_code == 403, path
    foreign = await gateway.client.post("/api/v1/me", json={}, headers={"origin": "https://evil.example"})
    event = await log.next()
    assert event.request_id == foreign.headers["x-request-id"]
