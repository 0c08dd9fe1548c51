"""Every query of the chain; those that filter are in `search`."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from espalier_auth.audit.models import CHAINED, START, AuditEntry, Head

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
    *columns, words = (getattr(AuditEntry, name) for name in CHAINED)
    # The driver reads an array letter by letter, which takes longer than all the rest; orjson does not.
    statement = select(*columns, cast(func.to_json(words), Text), AuditEntry.hash).where(AuditEntry.sequence > after)
    rows = session.execute(statement.order_by(AuditEntry.sequence).limit(limit))
    return [(*values, orjson.loads(found), bytes(digest)) for *values, found, digest in rows]
