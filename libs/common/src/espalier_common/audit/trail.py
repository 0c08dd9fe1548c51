"""Writes what calls tell into the service's outbox, in batches and off the event loop."""

import asyncio
from collections import deque

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from espalier.auth.v1 import audit_pb2
from espalier_common import outbox
from espalier_common.audit.limits import COUNTED, RefusalLimit
from espalier_common.audit.masking import to_json
from espalier_common.audit.recording import REFUSALS, REFUSED, Recording, running_var, subject_of
from espalier_common.audit.rule import AuditRule
from espalier_common.db import Database, new_id, utc_now, witness_var
from espalier_common.errors import EspalierError
from espalier_common.telemetry import get_logger

MAX_WAITING = 10_000  # calls in memory while the database is away
BATCH = 200
RETRY_SECONDS = 1.0
LEFT_OUT = "MORE_REFUSALS"

Told = Recording | audit_pb2.AuditEvent

_log = get_logger(__name__)


class AuditTrail:
    """The service's audit trail; lives on its event loop."""

    def __init__(self, database: Database, *, service: str, limit: RefusalLimit | None = None) -> None:
        self._database = database
        self._service = service
        self._limit = limit or RefusalLimit()
        self._waiting: deque[Told] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._said_full = False

    def begin(self, rule: AuditRule, request: Message) -> Recording:
        """A call begins, in the running context. Its end must be told with `end`."""
        recording = Recording(rule, service=self._service, request=request)
        running_var.set(recording)
        if rule.tells:
            witness_var.set(recording)
        return recording

    def end(self, recording: Recording, *, answer: Message | None, error: EspalierError | None, cut: bool) -> None:
        """The call is over, in its own context; what it tells is written soon. `cut`: its caller has gone."""
        # The handler may still be at work in a thread; what that commits is told by the recording itself.
        if (cut or (error and error.code == "DEADLINE_EXCEEDED")) and not recording.held_row:
            return
        recording.over = True
        recording.answer, recording.error = answer, error
        recording.note_caller()
        if not recording.is_told:
            return
        refused = recording.error is not None and recording.error.code in REFUSALS
        counts = refused and not recording.held_row and not recording.reason
        if counts and not self._limit.take(recording.address):
            return
        self._put(recording)

    async def run(self) -> None:
        """Writes for ever; waits while the database is away."""
        while True:
            try:
                async with asyncio.timeout(COUNTED):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._tell_left_out()
            try:
                await self.flush()
            except Exception as error:
                _log.warning("audit trail waits for the database", waiting=len(self._waiting), error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def flush(self) -> None:
        """Writes all that waits. Raises what the database raises, and keeps what is not written."""
        async with self._writing:
            while self._waiting:
                batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
                await asyncio.to_thread(self._write_all, batch)
                for _ in batch:
                    self._waiting.popleft()

    async def close(self) -> None:
        """Writes what is left, before the database is closed."""
        self._tell_left_out(now=True)
        try:
            async with asyncio.timeout(5):
                await self.flush()
        except Exception as error:
            _log.error("audit events could not be written", count=len(self._waiting), error=repr(error))

    def _put(self, told: Told) -> None:
        if len(self._waiting) >= MAX_WAITING:
            if not self._said_full:
                _log.error("audit trail is full, the database is away; what comes now is not told", limit=MAX_WAITING)
            self._said_full = True
            return
        self._said_full = False
        self._waiting.append(told)
        self._wake.set()

    def _tell_left_out(self, *, now: bool = False) -> None:
        left_out, seconds = self._limit.take_left_out(now=now)
        for address, count in left_out.items():
            event = audit_pb2.AuditEvent(
                id=new_id(),
                service=self._service,
                action="refusals",
                result=REFUSED,
                reason=LEFT_OUT,
                address=address[:100],
                after=to_json({"count": count, "seconds": round(seconds)}),
            )
            event.time.FromDatetime(utc_now())
            self._put(event)

    def _write_all(self, batch: list[Told]) -> None:
        with self._database.transaction() as session:
            for told in batch:
                _write(session, told)


def _write(session: Session, told: Told) -> None:
    try:
        event = told if isinstance(told, audit_pb2.AuditEvent) else told.event()
    except Exception:
        # A defect, which must not hold up all that comes after it.
        _log.exception("an audit event cannot be made", service=told.service)
        return
    subject = subject_of(event.service)
    if isinstance(told, Recording) and told.held_row:
        outbox.release(session, told.held_row, event, subject=subject)
    else:
        outbox.record(session, event, key=event.id, subject=subject)
