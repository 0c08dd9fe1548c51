"""The transactional outbox: an event is stored with the change that it tells of, and published after the commit.

`record` is called inside the transaction; `OutboxRelay.run` is one of the service's background tasks. An event arrives
at least once, and once in effect: JetStream drops a second copy by its id, consumers remember the ids they applied.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import ColumnElement, Insert, Row, bindparam, delete, insert, or_, select, update
from sqlalchemy.orm import Session

from espalier_common.bus import AUDIT, Bus
from espalier_common.db import Database, announce, new_id, utc_now
from espalier_common.errors import Unavailable
from espalier_common.packs import MAX_PACK_BYTES, pack
from espalier_common.rpc.context import current_request_id
from espalier_common.tables import outbox
from espalier_common.telemetry import get_logger

TOPIC = "outbox"
KEY_HEADER = "Espalier-Key"
REQUEST_ID_HEADER = "Espalier-Request-Id"
BATCH = 100
POLL_SECONDS = 5.0  # finds what another replica left behind; our own commits wake the relay at once
MAX_PAUSE = 15.0
# The rows are locked while they are published, or replicas would publish them twice, and out of order. A transaction
# that waits for a minute is ended by the server, and then none of them would count as published.
MAX_BATCH_SECONDS = 20.0
# What is recorded within this time leaves together; the first after a quiet time leaves at once.
PACE_SECONDS = 0.2
KEEP_PUBLISHED = timedelta(days=1)
PRUNE_SECONDS = 3600.0
# Longer than a unary call may take: whoever held the event has died, or is a long stream.
HOLD_LIMIT = timedelta(minutes=2)
_HELD = "held:"

_log = get_logger(__name__)


def record(session: Session, message: Message, *, key: str = "", subject: str = "", held: bool = False) -> str:
    """Stores the event with the running transaction; gives its id. Subject = full name of the message by default.

    `key` names what it is about (an id); consumers find it in the headers. A held event waits for its `release`, two
    minutes at most.
    """
    row_id = new_id()
    headers = {KEY_HEADER: key, REQUEST_ID_HEADER: current_request_id()}
    subject = subject or message.DESCRIPTOR.full_name
    row = {
        "id": row_id,
        "subject": f"{_HELD}{subject}" if held else subject,
        "payload": message.SerializeToString(),
        "headers": {name: value for name, value in headers.items() if value},
        "created_at": utc_now(),
    }
    session.execute(_recording(), row)
    if not held:
        announce(session, TOPIC)
    return row_id


def release(session: Session, row_id: str, message: Message, *, subject: str) -> None:
    """Lets a held event go, as this message. Does nothing when it has gone already."""
    session.execute(
        update(outbox)
        .where(outbox.c.id == row_id, outbox.c.published_at.is_(None))
        .values(subject=subject, payload=message.SerializeToString())
    )
    announce(session, TOPIC)


@cache
def _recording() -> Insert:
    names = ("id", "subject", "payload", "headers", "created_at")
    return insert(outbox).values({name: bindparam(name) for name in names})


def _is_due() -> ColumnElement[bool]:
    return or_(outbox.c.subject.not_like(f"{_HELD}%"), outbox.c.created_at < utc_now() - HOLD_LIMIT)


class OutboxRelay:
    """Publishes recorded events, one relay those of a service in the order of their storage.

    Any number of replicas may run one; what one of them is publishing the others pass over.
    """

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._next_prune = 0.0

    async def run(self) -> None:
        """Relays for ever; waits with growing pauses while the bus or the database is away."""
        pause = 0.5
        with self._database.subscribe(TOPIC) as subscription:
            while True:
                next_batch = asyncio.get_running_loop().time() + PACE_SECONDS
                try:
                    while await asyncio.to_thread(self.publish_batch) >= BATCH:
                        pass
                    await self._prune_sometimes()
                except Exception as error:
                    log = _log.info if isinstance(error, Unavailable) else _log.warning
                    log("outbox waits", seconds=pause, error=repr(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, MAX_PAUSE)
                    continue
                pause = 0.5
                if await subscription.wait(POLL_SECONDS):
                    await asyncio.sleep(next_batch - asyncio.get_running_loop().time())

    def publish_batch(self) -> int:
        """Publishes up to 100 events that wait, for some 20 s at most; gives how many. Blocks.

        Raises Unavailable while the bus is away.
        """
        with self._database.transaction() as session:
            waiting = (
                select(outbox)
                .where(outbox.c.published_at.is_(None), _is_due())
                .order_by(outbox.c.sequence)
                .limit(BATCH)
                .with_for_update(skip_locked=True)
            )
            rows = session.execute(waiting).all()
            published, failure = self._publish(rows)
            if published:
                # What was confirmed stays confirmed even when a later one failed.
                session.execute(update(outbox).where(outbox.c.sequence.in_(published)).values(published_at=utc_now()))
        if failure is not None:
            raise failure
        return len(published)

    def prune(self) -> None:
        """Deletes events published more than a day ago."""
        with self._database.transaction() as session:
            session.execute(delete(outbox).where(outbox.c.published_at < utc_now() - KEEP_PUBLISHED))

    def _publish(self, rows: Sequence[Row[Any]]) -> tuple[list[int], Exception | None]:
        published: list[int] = []
        end = time.monotonic() + MAX_BATCH_SECONDS
        for together in _groups(rows):
            if published and time.monotonic() > end:
                break
            try:
                self._send(together)
            except (Unavailable, TimeoutError) as error:
                return published, error
            published += [row.sequence for row in together]
        return published, None

    def _send(self, rows: Sequence[Row[Any]]) -> None:
        subject = rows[0].subject.removeprefix(_HELD)
        if len(rows) == 1:
            [row] = rows
            self._bus.publish_from_thread(subject, bytes(row.payload), msg_id=row.id, headers=dict(row.headers))
            return
        packed = pack([(row.id, bytes(row.payload), dict(row.headers)) for row in rows])
        self._bus.publish_from_thread(subject, packed.payload, msg_id=packed.id, headers=packed.headers)

    async def _prune_sometimes(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            await asyncio.to_thread(self.prune)


def _groups(rows: Sequence[Row[Any]]) -> Iterator[Sequence[Row[Any]]]:
    """The events in their order, those that may travel in one message together."""
    group: list[Row[Any]] = []
    size = 0
    for row in rows:
        more = len(row.payload)
        if group and not (_travel_together(group[0], row) and size + more <= MAX_PACK_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += more
    if group:
        yield group


def _travel_together(one: Row[Any], other: Row[Any]) -> bool:
    # Others than the audit log's consumer look at a message by itself.
    subject = one.subject.removeprefix(_HELD)
    return subject == other.subject.removeprefix(_HELD) and AUDIT.takes(subject)
