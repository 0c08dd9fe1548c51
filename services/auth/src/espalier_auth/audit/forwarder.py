"""Carries each event of the log to a destination elsewhere, in the order of the chain, at least once.

The cursor moves with the receiver's confirmation alone, so whoever dies in between sends the same events again. One
process forwards at a time: the others find the cursor held.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from espalier_auth.audit import repository
from espalier_auth.audit.destinations import Destination, Outgoing, Undelivered, outgoing
from espalier_auth.audit.service import APPENDED
from espalier_common.db import Database, utc_now
from espalier_common.telemetry import get_logger

BATCH = 200
BATCH_BYTES = 512 << 10
PACE_SECONDS = 0.5  # what is appended within this time leaves together
POLL_SECONDS = 5.0  # finds what another replica appended
FIRST_PAUSE, MOST_PAUSE = 1.0, 60.0
LATE_SECONDS = 300.0  # then somebody should look
LINE_SECONDS = 60.0  # between two lines of the log about the same trouble

_log = get_logger(__name__)


class ForwardingMetrics:
    """How far the destination is behind, for Prometheus. One per process and registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.waiting = Gauge(
            "espalier_audit_forward_waiting_events", "Audit events that the destination lacks", registry=registry
        )
        self.seconds = Gauge(
            "espalier_audit_forward_lag_seconds", "Since when the oldest of them waits", registry=registry
        )


@dataclass(frozen=True)
class Round:
    """What one round found."""

    more: bool  # events wait that could go at once
    failure: str  # why the destination does not take them; empty when it does


class Forwarder:
    """Sends what waits, for ever."""

    def __init__(
        self, database: Database, destination: Destination, *, name: str, metrics: ForwardingMetrics | None = None
    ) -> None:
        self._database = database
        self._destination = destination
        self._name = name
        self._metrics = metrics
        self._next_line = 0.0
        self._is_failing = False

    async def run(self) -> None:
        """Runs as long as the process; waits longer and longer while the destination is away."""
        pause = FIRST_PAUSE
        with self._database.subscribe(APPENDED) as subscription:
            while True:
                found = await _in_own_thread(self.forward)
                if found.failure:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, MOST_PAUSE)
                    continue
                pause = FIRST_PAUSE
                if not found.more:
                    await subscription.wait(POLL_SECONDS)
                    await asyncio.sleep(PACE_SECONDS)

    def forward(self) -> Round:
        """Sends the next events, if no other process does. Blocks."""
        with self._database.transaction() as session:
            repository.add_cursor(session, self._name)
        more, failure = False, ""
        try:
            more = self._send()
        except Undelivered as error:
            failure = str(error)
        self._tell(failure)
        return Round(more, failure)

    def _send(self) -> bool:
        with self._database.transaction() as session:
            cursor = repository.take_cursor(session, self._name)
            if cursor is None:
                return False
            # Read on a connection of its own: a transaction that has read the log would hold up changes of its table.
            with self._database.reading() as reading:
                entries = repository.read_entries(reading, after=cursor.sequence, limit=BATCH)
            events = list(_within(BATCH_BYTES, [outgoing(entry) for entry in entries]))
            if not events:
                return False
            self._destination.send(events)
            cursor.sequence = events[-1].sequence
            return len(events) < len(entries) or len(entries) == BATCH

    def _tell(self, failure: str) -> None:
        with self._database.reading() as session:
            waiting, since = repository.find_waiting(session, self._name)
        seconds = max(0.0, (utc_now() - since).total_seconds()) if since else 0.0
        if self._metrics is not None:
            self._metrics.waiting.set(waiting)
            self._metrics.seconds.set(seconds)
        is_late = seconds >= LATE_SECONDS
        if not failure and self._is_failing:
            _log.info("audit events reach their destination again", destination=self._name, waiting=waiting)
        if (failure or is_late) and (time.monotonic() >= self._next_line or (failure and not self._is_failing)):
            self._next_line = time.monotonic() + LINE_SECONDS
            tell = _log.error if is_late else _log.warning
            tell(
                "audit events wait for their destination",
                destination=self._name,
                waiting=waiting,
                seconds=round(seconds),
                reason=failure or "there are more than it takes",
            )
        self._is_failing = bool(failure)


def _within(most: int, events: Sequence[Outgoing]) -> Iterator[Outgoing]:
    """The first events that have so many bytes together, one at least."""
    size = 0
    for event in events:
        size += len(event.json)
        if size > most and event is not events[0]:
            return
        yield event


async def _in_own_thread(work: Callable[[], Round]) -> Round:
    """As `asyncio.to_thread`, but who waits for the destination holds up no other work, and no end of the process."""
    done: Future[Round] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, name="audit-forwarder", daemon=True).start()
    return await asyncio.wrap_future(done)
