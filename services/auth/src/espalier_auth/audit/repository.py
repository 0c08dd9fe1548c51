"""Every query of the audit log."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from espalier_auth.audit.models import CHAINED, START, AuditEntry, Head, Result
from espalier_common.identifiers import is_uuid
from espalier_common.pagination import Page, PageRequest

# "audi": any number but those of other locks of auth; one writer at a time makes a chain without forks or gaps.
_CHAIN_LOCK = 0x61756469
_LAST_LETTER = "\U0010ffff"
# So many events are looked through in 10 ms.
WINDOW = 10_000

_NEWEST = (AuditEntry.time.desc(), AuditEntry.sequence.desc())


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

    @property
    def is_in_order(self) -> bool:
        """Whether one index finds these events sorted by time."""
        return not (self.action or self.target or self.words or (self.actor and self.result))


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
    """Events, the newest first.

    One filter that an index has in order is read in that order. Of any other, and of several, PostgreSQL would assume
    that what it finds is spread evenly over time, and read a million events for what happened only long ago. So the
    newest events are looked through first, and if they do not fill the page, all that match are found by their indexes.
    """
    before = None if page.after is None else (page.after[0], page.after[1])
    if wanted.is_in_order:
        query = _matching(wanted).where(*_earlier(before)).order_by(*_NEWEST)
        rows = session.scalars(query.limit(page.size + 1)).all()
    else:
        rows = _among_newest(session, wanted, before=before, limit=page.size + 1)
        if len(rows) <= page.size:
            rows = _among_all(session, wanted, before=before, limit=page.size + 1)
    items = list(rows[: page.size])
    token = page.token((items[-1].time, items[-1].sequence)) if len(rows) > page.size else ""
    return Page(items, token)


def _earlier(before: tuple[datetime, int] | None) -> list[Any]:
    if before is None:
        return []
    moment, sequence = before
    earlier = (AuditEntry.time < moment) | ((AuditEntry.time == moment) & (AuditEntry.sequence < sequence))
    # The first condition alone bounds the index scan.
    return [AuditEntry.time <= moment, earlier]


def _among_newest(
    session: Session, wanted: Filter, *, before: tuple[datetime, int] | None, limit: int
) -> Sequence[AuditEntry]:
    window = select(AuditEntry).where(*_in_time(wanted), *_earlier(before)).order_by(*_NEWEST).limit(WINDOW).subquery()
    newest = aliased(AuditEntry, window)
    query = select(newest).where(*_conditions(wanted, newest))
    return session.scalars(query.order_by(newest.time.desc(), newest.sequence.desc()).limit(limit)).all()


def _among_all(
    session: Session, wanted: Filter, *, before: tuple[datetime, int] | None, limit: int
) -> Sequence[AuditEntry]:
    keys = select(AuditEntry.time, AuditEntry.sequence).where(*_in_time(wanted), *_earlier(before))
    # Materialized: planned for all of them, not for the first few in order.
    found = keys.where(*_conditions(wanted, AuditEntry)).cte("found").prefix_with("MATERIALIZED")
    first = select(found.c.sequence).order_by(found.c.time.desc(), found.c.sequence.desc()).limit(limit)
    query = select(AuditEntry).where(AuditEntry.sequence.in_(first))
    return session.scalars(query.order_by(*_NEWEST)).all()


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


def _matching(wanted: Filter) -> Select[Any]:
    return select(AuditEntry).where(*_in_time(wanted), *_conditions(wanted, AuditEntry))


def _in_time(wanted: Filter) -> list[Any]:
    found = []
    if wanted.start is not None:
        found.append(AuditEntry.time >= wanted.start)
    if wanted.end is not None:
        found.append(AuditEntry.time < wanted.end)
    return found


def _conditions(wanted: Filter, entry: Any) -> list[Any]:
    found: list[Any] = []
    if wanted.actor:
        found.append((entry.actor_id if is_uuid(wanted.actor) else entry.actor_name) == wanted.actor)
    for column, prefix in ((entry.action, wanted.action), (entry.target, wanted.target)):
        if prefix:
            found += [column >= prefix, column < prefix + _LAST_LETTER]
    if wanted.result is not None:
        found.append(entry.result == wanted.result.value)
    if wanted.words:
        found.append(entry.words.contains(list(wanted.words)))
    return found
