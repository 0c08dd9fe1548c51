"""The audit log: append, read, check. Each call is part of the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert
from sqlalchemy.orm import Session

from espalier_auth.audit import repository
from espalier_auth.audit.models import CHAINED, START, AuditEntry, Head, NewEvent, hash_of, words_of
from espalier_auth.models import table_of
from espalier_common.db import announce

APPENDED = "audit events appended"  # is announced with them
CHECK_PAGE = 2000
# One call checks no more: 100,000 take two to three seconds of one core, and others want to be answered.
MOST_CHECKED = 100_000


def append(session: Session, events: Sequence[NewEvent]) -> tuple[Head, Head]:
    """Chains the events to the log in their order; those that are in it already are left alone.

    Gives the end of the chain before and after.
    """
    repository.lock_chain(session)
    known = repository.known_ids(session, [event.id for event in events])
    before = head = repository.find_head(session)
    rows = []
    for event in events:
        if event.id in known:
            continue
        known.add(event.id)
        values = {
            **vars(event),
            "result": event.result.value,
            "words": words_of(event),
            "sequence": head.sequence + 1,
        }
        head = Head(head.sequence + 1, hash_of(head.hash, tuple(values[name] for name in CHAINED)))
        rows.append({**values, "hash": head.hash})
    if rows:
        session.execute(insert(table_of(AuditEntry)), rows)
        announce(session, APPENDED)
    return before, head


@dataclass(frozen=True)
class Finding:
    """What a check found: `broken` is the first sequence that is missing or changed, 0 when none is."""

    checked: int
    broken: int
    message: str
    reached: Head
    is_end: bool


def check_chain(session: Session, *, start: Head = START, remembered: Head | None = None) -> Finding:
    """Checks up to 100,000 events behind `start`, which was checked before, and that `remembered` is still there."""
    newest = repository.find_head(session)
    for place in (start, remembered):
        if place is not None and place.sequence and (finding := _missing(session, place, newest)):
            return finding
    head, checked = start, 0
    while checked < MOST_CHECKED:
        rows = repository.read_chain(session, after=head.sequence, limit=CHECK_PAGE)
        for *values, found in rows:
            head, broken = _next(head, tuple(values), bytes(found))
            if broken:
                return Finding(checked, head.sequence + 1, broken, head, is_end=True)
            checked += 1
        if len(rows) < CHECK_PAGE:
            return Finding(checked, 0, f"The chain is whole up to event {head.sequence}.", head, is_end=True)
    return Finding(checked, 0, f"The chain is whole up to event {head.sequence}; go on.", head, is_end=False)


def _next(head: Head, values: tuple[object, ...], found: bytes) -> tuple[Head, str]:
    expected = head.sequence + 1
    if values[0] != expected:
        return head, f"Event {expected} is missing: event {values[0]} follows event {head.sequence}."
    if hash_of(head.hash, values) != found:
        return head, f"Event {expected} was changed: its hash does not fit."
    return Head(expected, found), ""


def _missing(session: Session, place: Head, newest: Head) -> Finding | None:
    if place.sequence > newest.sequence:
        message = f"The end is missing: the log once reached event {place.sequence}, it ends at {newest.sequence}."
        return Finding(0, newest.sequence + 1, message, newest, is_end=True)
    found = repository.find_hash(session, place.sequence)
    if found is None:
        return Finding(0, place.sequence, f"Event {place.sequence} is missing.", newest, is_end=True)
    if found != place.hash:
        message = f"Event {place.sequence}, or one before it, was changed: its hash is not the one that was kept."
        return Finding(0, place.sequence, message, newest, is_end=True)
    return None
