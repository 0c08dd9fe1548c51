"""What the gateway itself refuses and changes, told to the audit log; services tell of all that reaches them.

The gateway has no database, so no outbox: events wait in memory until JetStream has confirmed them. A refusal is told
at once, and how often the same one came again from the same address a few seconds later; as long as the bus is away
the counting goes on. So a flood makes few events and takes bounded memory, and a gateway that is killed loses what it
counted in its last seconds, or while the bus was away (docs/adr/0014).
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import grpc.aio
import orjson
from starlette.requests import Request
from starlette.types import Scope

from espalier.auth.v1 import audit_pb2
from espalier_common.errors import EspalierError, Unavailable
from espalier_common.identifiers import new_id
from espalier_common.identity import Principal
from espalier_common.storable import storable
from espalier_common.telemetry import get_logger
from espalier_gateway.clients import Clients
from espalier_gateway.errors import BodyTooLarge, HostRefused, RequestTooSlow
from espalier_gateway.exchange import Exchange

SUBJECT = "espalier.gateway.audit"
WINDOW = 60.0  # seconds
COUNTED = 5.0  # seconds between two tellings of what was counted, where that makes few events
EVENTS_A_SECOND = 10.0  # of what was counted: where it makes many, they wait longer
ROUND = 1.0  # seconds between looks at what is to be told
RETRY = 4.0  # more seconds while the bus is away
CLOSE_SECONDS = 5.0
MAX_KINDS = 300  # of refusals told apart in one window, all addresses together
PER_ADDRESS = 10
MAX_CHANGES = 2_000  # waiting while the bus is away
LEFT_OUT = "MORE_REFUSALS"
ACTION = "gateway/request"

REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"})
_REFUSED_HERE = (HostRefused, BodyTooLarge, RequestTooSlow)
_CHANGING = frozenset({"POST", "DELETE"})
_DONE, _REFUSED = audit_pb2.AUDIT_RESULT_DONE, audit_pb2.AUDIT_RESULT_REFUSED

_log = get_logger(__name__)


class Publisher(Protocol):
    """What is used of the bus."""

    async def publish(self, subject: str, payload: bytes, *, msg_id: str) -> None:
        """Returns when the event is safe. Raises Unavailable."""


@dataclass
class _Refusal:
    """One kind of refusal: its first event, how often it came again untold, and whether the first is told."""

    event: audit_pb2.AuditEvent
    again: int = 0
    is_told: bool = False


@dataclass
class _Window:
    """The refusals of a minute; what is not told apart is counted by address, or under none."""

    begun: float
    counted_since: float
    kinds: dict[tuple[str, ...], _Refusal] = field(default_factory=dict)
    by_address: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def count(self, key: tuple[str, ...], make: Callable[[], audit_pb2.AuditEvent]) -> bool:
        """Counts a refusal; True when it is the first of its kind."""
        if known := self.kinds.get(key):
            known.again += 1
            return False
        address = key[0]
        if len(self.kinds) >= MAX_KINDS or self.by_address[address] >= PER_ADDRESS:
            apart = address in self.by_address
            self.left_out[address if apart else ""] += 1
            return False
        self.by_address[address] += 1
        self.kinds[key] = _Refusal(make())
        return True

    def untold(self) -> list[_Refusal]:
        """Kinds of which the first is not told yet."""
        return [refusal for refusal in self.kinds.values() if not refusal.is_told]

    def take_counted(self, now: float) -> list[audit_pb2.AuditEvent]:
        """How often each came again since the last telling, and how many were not told apart; none is told twice."""
        seconds = round(now - self.counted_since)
        events = [*self._again(seconds), *self._left_out(seconds)]
        self.counted_since = now
        self.left_out.clear()
        return events

    def _again(self, seconds: int) -> Iterator[audit_pb2.AuditEvent]:
        for refusal in self.kinds.values():
            if refusal.again:
                event = audit_pb2.AuditEvent()
                event.CopyFrom(refusal.event)
                event.id, event.request_id = new_id(), ""
                event.time.GetCurrentTime()
                event.after = _json({"again": refusal.again, "seconds": seconds})
                refusal.again = 0
                yield event

    def _left_out(self, seconds: int) -> Iterator[audit_pb2.AuditEvent]:
        for address, count in self.left_out.items():
            event = audit_pb2.AuditEvent(id=new_id(), action=ACTION, result=_REFUSED, reason=LEFT_OUT, address=address)
            event.time.GetCurrentTime()
            event.after = _json({"count": count, "seconds": seconds})
            yield event


class AuditTrail:
    """The gateway's audit trail; lives on its event loop."""

    def __init__(self, clients: Clients, bus: Publisher, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = clients
        self._bus = bus
        self._clock = clock
        self._window = _Window(clock(), clock())
        self._pause = COUNTED
        self._waiting: deque[audit_pb2.AuditEvent] = deque()
        self._wake = asyncio.Event()
        self._said_full = False

    def note(self, scope: Scope, exchange: Exchange, status: int) -> None:
        """Takes notice of a request that was answered; most of them are the services' to tell."""
        error, caller = exchange.error, exchange.caller
        if error is None:
            if caller is not None and status < 400 and scope["method"] in _CHANGING:
                self._note_change(scope, exchange)
        elif _is_refused_here(error):
            self._note_refusal(scope, exchange, error, status)

    async def run(self) -> None:
        """Tells for ever; waits while the bus is away."""
        while True:
            try:
                async with asyncio.timeout(COUNTED):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self.tell()
            except Exception as error:
                if not isinstance(error, Unavailable):
                    _log.exception("audit events cannot be told, trying on")
                self._wake.set()
                await asyncio.sleep(RETRY)
            await asyncio.sleep(ROUND)

    async def tell(self, *, all_of_it: bool = False) -> None:
        """Tells what is due, or `all_of_it`. Raises Unavailable when the bus is away, and keeps what is not told."""
        await self._tell_waiting()
        for refusal in self._window.untold():
            await self._publish(refusal.event)
            refusal.is_told = True
        now = self._clock()
        is_over = all_of_it or now - self._window.begun >= WINDOW
        if is_over or now - self._window.counted_since >= self._pause:
            counted = self._window.take_counted(now)
            # Each keeps its id until the bus has confirmed it, so that none counts twice there.
            self._waiting.extend(counted)
            self._pause = max(COUNTED, len(counted) / EVENTS_A_SECOND)
            if is_over:
                self._window = _Window(now, now)
            await self._tell_waiting()

    async def close(self) -> None:
        """Tells what is left."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.tell(all_of_it=True)
        except (TimeoutError, Unavailable):
            left = sum(not refusal.is_told for refusal in self._window.kinds.values()) + len(self._waiting)
            if left:
                _log.error("audit events could not be told: the message bus is away", count=left)

    def _note_refusal(self, scope: Scope, exchange: Exchange, error: EspalierError, status: int) -> None:
        request = Request(scope)
        address, action = storable(self._clients.client_of(request).address)[:100], _action(exchange)
        # Whoever is known is told with each thing that he wanted; of others a path is what they made up.
        what = (exchange.caller.subject, _target(scope, exchange)) if exchange.caller else ()

        def make() -> audit_pb2.AuditEvent:
            event = _event(scope, exchange, address=address)
            event.result, event.reason = _REFUSED, error.reason
            event.after = _json({"method": request.method[:20], "status": status})
            return event

        if self._window.count((address, error.reason, action, request.method[:20], *what), make):
            self._wake.set()

    def _note_change(self, scope: Scope, exchange: Exchange) -> None:
        if len(self._waiting) >= MAX_CHANGES:
            if not self._said_full:
                _log.error("audit trail is full, the message bus is away; what changes now is not told")
            self._said_full = True
            return
        self._said_full = False
        event = _event(scope, exchange, address=storable(self._clients.client_of(Request(scope)).address)[:100])
        event.result = _DONE
        event.after = _json({"method": scope["method"]})
        self._waiting.append(event)
        self._wake.set()

    async def _tell_waiting(self) -> None:
        while self._waiting:
            await self._publish(self._waiting[0])
            self._waiting.popleft()

    async def _publish(self, event: audit_pb2.AuditEvent) -> None:
        await self._bus.publish(SUBJECT, event.SerializeToString(), msg_id=event.id)


def _is_refused_here(error: EspalierError) -> bool:
    """Whether the gateway refused, and not a service, which tells of it itself."""
    if isinstance(error.__cause__, grpc.aio.AioRpcError):
        return False
    return error.code in REFUSALS or isinstance(error, _REFUSED_HERE)


def _action(exchange: Exchange) -> str:
    """As services write the RPC's name; a path of the gateway's own; or that no route was known yet."""
    if not exchange.route:
        return ACTION
    if exchange.route.startswith("/"):
        return f"gateway{exchange.route}"
    service, _, method = exchange.route.rpartition(".")
    return f"{service}/{method}"


def _event(scope: Scope, exchange: Exchange, *, address: str) -> audit_pb2.AuditEvent:
    event = audit_pb2.AuditEvent(
        id=new_id(),
        service="gateway",
        action=_action(exchange),
        target=_target(scope, exchange),
        address=address,
        request_id=exchange.request_id,
    )
    event.time.GetCurrentTime()
    principal: Principal | None = exchange.caller
    if principal is not None:
        event.actor_id, event.actor_name = principal.subject, principal.name
        event.api_key_id = principal.api_key
    return event


def _target(scope: Scope, exchange: Exchange) -> str:
    """Of a path that nobody vouches for no more than is needed to find it."""
    path: str = scope["path"].removeprefix("/").removeprefix("api/v1/")
    path = f"{path}/{exchange.made}" if exchange.made else path
    return storable(path)[:200] if exchange.route else ""


def _json(values: dict[str, object]) -> str:
    return orjson.dumps(values).decode()
