"""Every query of the chain; those that filter are in `search`."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Text, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.audit.models import CHAINED, START, AuditEntry, ForwardingCursor, Head
from espalier_auth.models import table_of
from espalier_common.db import utc_now

# "audi": any number but those of other locks of auth; one writer at a time makes a chain without forks or gaps.
_CHAIN_LOCK = 0x61756469


def lock_chain(session: Session) -> None:
    """Waits until no other process appends; held until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(_CHAIN_LOCK)))


def find_head(session: Session) -> Head:
    """The newest event's place; the start of the chain when there is none."""
    newest = select(AuditEntry.sequence, AuditEntry.hash).order_by(AuditEntry.sequence.desc()).limit(1)
    row = session.execute(newest).one_or_none()
    return Head(row.sequence, bytes(row.hash)) if row else START


def find_hash(session: Session, sequence: int) -> bytes | None:
    """The hash of one event."""
    found = session.scalars(select(AuditEntry.hash).where(AuditEntry.sequence == sequence)).one_or_none()
    return None if found is None else bytes(found)


def known_ids(session: Session, ids: Iterable[str]) -> set[str]:
    """Those of the ids that are in the log already."""
    return set(session.scalars(select(AuditEntry.id).where(AuditEntry.id.in_(list(ids)))))


def read_chain(session: Session, *, after: int, limit: int) -> Sequence[Any]:
    """What the chain covers of the next events, each with its hash, in order."""
    columns = {name: getattr(AuditEntry, name) for name in CHAINED}
    # The driver reads an array letter by letter, which takes longer than all the rest; orjson does not.
    columns["words"] = cast(func.to_json(AuditEntry.words), Text)
    statement = select(*columns.values(), AuditEntry.hash).where(AuditEntry.sequence > after)
    rows = session.execute(statement.order_by(AuditEntry.sequence).limit(limit))
    return [(*values, orjson.loads(words), key, bytes(digest)) for *values, words, key, digest in rows]


def add_cursor(session: Session, destination: str) -> None:
    """Begins with the first event, unless the destination is known."""
    values = {"destination": destination, "sequence": 0, "created_at": utc_now()}
    session.execute(insert(table_of(ForwardingCursor)).values(values).on_conflict_do_nothing())


def take_cursor(session: Session, destination: str) -> ForwardingCursor | None:
    """The destination's cursor, held until the transaction ends; None while another process holds it."""
    query = select(ForwardingCursor).where(ForwardingCursor.destination == destination)
    return session.scalars(query.with_for_update(skip_locked=True)).one_or_none()


def find_waiting(session: Session, destination: str) -> tuple[int, datetime | None]:
    """How many events the destination has not confirmed, and since when the oldest of them waits."""
    cursor = session.get_one(ForwardingCursor, destination)
    oldest = session.scalars(
        select(AuditEntry.time).where(AuditEntry.sequence > cursor.sequence).order_by(AuditEntry.sequence).limit(1)
    ).one_or_none()
    if oldest is None:
        return 0, None
    # What was there before the destination was named did not wait for it.
    return find_head(session).sequence - cursor.sequence, max(oldest, cursor.created_at)


def read_entries(session: Session, *, after: int, limit: int) -> Sequence[AuditEntry]:
    """The next events in the order of the chain."""
    query = select(AuditEntry).where(AuditEntry.sequence > after).order_by(AuditEntry.sequence).limit(limit)
    return session.scalars(query).all()
