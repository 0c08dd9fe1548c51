"""Every query of the audit log."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from espalier_auth.audit.models import CHAINED, START, AuditEntry, Head, Result
from espalier_common.identifiers import is_uuid
from espalier_common.pagination import Page, PageRequest, paginate

# "audi": any number but those of other locks of auth; one writer at a time makes a chain without forks or gaps.
_CHAIN_LOCK = 0x61756469
_LAST_LETTER = "\U0010ffff"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events; what is empty or None does not narrow."""

    actor: str = ""
    action: str = ""
    target: str = ""
    result: Result | None = None
    start: datetime | None = None
    end: datetime | None = None
    words: tuple[str, ...] = ()


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
    columns = [getattr(AuditEntry, name) for name in CHAINED]
    statement = select(*columns, AuditEntry.hash).where(AuditEntry.sequence > after)
    return session.execute(statement.order_by(AuditEntry.sequence).limit(limit)).all()


def list_events(session: Session, wanted: Filter, page: PageRequest) -> Page[AuditEntry]:
    """Events, the newest first."""
    order = (AuditEntry.time.desc(), AuditEntry.sequence.desc())
    return paginate(session, _matching(wanted), order=order, page=page)


def read_events(
    session: Session, wanted: Filter, *, after: tuple[datetime, int] | None, limit: int
) -> Sequence[AuditEntry]:
    """Events, the oldest first, from behind this time and sequence on."""
    query = _matching(wanted)
    if after is not None:
        moment, sequence = after
        later = (AuditEntry.time > moment) | ((AuditEntry.time == moment) & (AuditEntry.sequence > sequence))
        query = query.where(AuditEntry.time >= moment, later)
    return session.scalars(query.order_by(AuditEntry.time, AuditEntry.sequence).limit(limit)).all()


def _matching(wanted: Filter) -> Select[AuditEntry]:
    query = select(AuditEntry)
    if wanted.actor:
        query = query.where((AuditEntry.actor_id if is_uuid(wanted.actor) else AuditEntry.actor_name) == wanted.actor)
    if wanted.action:
        query = query.where(*_begins_with(AuditEntry.action, wanted.action))
    if wanted.target:
        query = query.where(*_begins_with(AuditEntry.target, wanted.target))
    if wanted.result is not None:
        query = query.where(AuditEntry.result == wanted.result)
    if wanted.start is not None:
        query = query.where(AuditEntry.time >= wanted.start)
    if wanted.end is not None:
        query = query.where(AuditEntry.time < wanted.end)
    if wanted.words:
        query = query.where(AuditEntry.words.contains(list(wanted.words)))
    return query


def _begins_with(column: InstrumentedAttribute[str], prefix: str) -> tuple[Any, Any]:
    return column >= prefix, column < prefix + _LAST_LETTER
