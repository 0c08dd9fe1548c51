"""Finds events by filters, the newest first, in a log of millions.

Each filter has an index that gives its events in the order of time, so a page of one filter is read off its index. Of
several filters the narrowest leads: unless it has so few events that all may be read, its newest ones are looked
through, and only if they do not fill the page all that match are found by what PostgreSQL makes of the indexes
together. Left to itself it would assume that what it finds is spread evenly over time, and read a million events for
what happened only long ago.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, String, and_, func, literal, select, true
from sqlalchemy.orm import Session, aliased

from espalier_auth.audit.models import AuditEntry, Result, split_words
from espalier_common.identifiers import is_uuid
from espalier_common.pagination import Page, PageRequest

_LAST_LETTER = "\U0010ffff"
# So many events are looked through in 10 ms, and so many are counted in an index in 2 ms. What words find cannot be
# counted without reading the events.
WINDOW, MANY, FEW = 2_500, 20_000, 1_000
# A prefix of more actions than the platform has is no prefix that anybody asks for.
MOST_ACTIONS = 300

_NEWEST = (AuditEntry.time.desc(), AuditEntry.sequence.desc())
_Place = tuple[datetime, int]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events; what is empty or None does not narrow. `action` and `target` are beginnings."""

    actor: str = ""
    action: str = ""
    target: str = ""
    result: Result | None = None
    address: str = ""
    request_id: str = ""
    start: datetime | None = None
    end: datetime | None = None
    words: tuple[str, ...] = ()
    # Whose doing the caller may see, by id; everybody's when None.
    within: frozenset[str] | None = None


@dataclass(frozen=True)
class Lead:
    """A filter that finds its events by itself: `is_ordered` when its index gives them in the order of time."""

    condition: ColumnElement[bool]
    is_ordered: bool
    most: int  # is counted up to here
    # Its index gives all of it, whatever the time: who counts what lies within bounds of time reads the rest as well.
    is_range: bool = False


def list_events(session: Session, wanted: Filter, page: PageRequest) -> Page[AuditEntry]:
    """Events, the newest first."""
    before: _Place | None = None if page.after is None else (page.after[0], page.after[1])
    bounds = [*_in_time(wanted), *_earlier(before)]
    actions = _actions(session, wanted.action) if wanted.action else []
    if wanted.action and not actions:
        return Page([], "")
    rows = _find(session, _Search(wanted, actions), bounds, limit=page.size + 1)
    items = list(rows[: page.size])
    token = page.token((items[-1].time, items[-1].sequence)) if len(rows) > page.size else ""
    return Page(items, token)


def read_events(session: Session, wanted: Filter, *, after: _Place | None, limit: int) -> Sequence[AuditEntry]:
    """Events, the oldest first, from behind this time and sequence on."""
    query = select(AuditEntry).where(*_in_time(wanted), *_Search(wanted).conditions(AuditEntry))
    if after is not None:
        moment, sequence = after
        later = (AuditEntry.time > moment) | ((AuditEntry.time == moment) & (AuditEntry.sequence > sequence))
        query = query.where(AuditEntry.time >= moment, later)
    return session.scalars(query.order_by(AuditEntry.time, AuditEntry.sequence).limit(limit)).all()


@dataclass(frozen=True)
class _Search:
    """What is wanted, and which `actions` begin as wanted: PostgreSQL guesses well of values, badly of beginnings."""

    wanted: Filter
    actions: Sequence[str] = ()

    def leads(self) -> list[Lead]:
        """The filters, those first that are narrow as a rule."""
        wanted, found = self.wanted, []
        if wanted.request_id:
            found.append(Lead(and_(*_has_request_id(wanted.request_id, AuditEntry)), False, FEW))
        if wanted.target:
            found.append(Lead(_begins(AuditEntry.target, wanted.target), False, MANY, is_range=True))
        if wanted.actor:
            found.append(Lead(_is_actor(wanted.actor, AuditEntry), True, MANY))
        if wanted.within is not None:
            found.append(Lead(AuditEntry.actor_id.in_(sorted(wanted.within)), len(wanted.within) == 1, MANY))
        if wanted.address:
            found.append(Lead(AuditEntry.address == wanted.address, True, MANY))
        if wanted.action:
            found.append(Lead(self._has_action(AuditEntry), len(self.actions) == 1, MANY))
        if wanted.result is not None:
            found.append(Lead(AuditEntry.result == wanted.result.value, True, MANY))
        if wanted.words:
            found.append(Lead(AuditEntry.words.contains(list(wanted.words)), False, FEW))
        return found

    def conditions(self, entry: Any) -> list[Any]:
        """What an event must be, but for its time."""
        wanted, found = self.wanted, list[Any]()
        if wanted.within is not None:
            found.append(entry.actor_id.in_(sorted(wanted.within)))
        if wanted.actor:
            found.append(_is_actor(wanted.actor, entry))
        if wanted.action:
            found.append(self._has_action(entry))
        if wanted.target:
            found.append(_begins(entry.target, wanted.target))
        if wanted.result is not None:
            found.append(entry.result == wanted.result.value)
        if wanted.address:
            found.append(entry.address == wanted.address)
        if wanted.request_id:
            found += _has_request_id(wanted.request_id, entry)
        if wanted.words:
            found.append(entry.words.contains(list(wanted.words)))
        return found

    def _has_action(self, entry: Any) -> ColumnElement[bool]:
        known = 0 < len(self.actions) <= MOST_ACTIONS
        found: ColumnElement[bool] = (
            entry.action.in_(self.actions) if known else _begins(entry.action, self.wanted.action)
        )
        return found


def _find(session: Session, search: _Search, bounds: list[Any], *, limit: int) -> Sequence[AuditEntry]:
    leads = search.leads()
    if not leads or (len(leads) == 1 and leads[0].is_ordered):
        query = select(AuditEntry).where(*bounds, *(lead.condition for lead in leads))
        return session.scalars(query.order_by(*_NEWEST).limit(limit)).all()
    if len(leads) == 1 and 0 < len(search.actions) <= MOST_ACTIONS:
        return _of_actions(session, search.actions, bounds, limit=limit)
    # Words are counted only where nothing else is: that reads the events themselves.
    countable = [lead for lead in leads if lead.most == MANY] or leads
    counted = [(_count(session, lead, [] if lead.is_range else bounds), lead) for lead in countable]
    if not any(count <= min(WINDOW, lead.most) for count, lead in counted):
        # Each of them has many, so it is likely that among the newest of the narrowest there are enough.
        ordered = [found for found in counted if found[1].is_ordered]
        lead = [min(ordered, key=lambda found: found[0])[1].condition] if ordered else []
        rows = _among_newest(session, search, [*lead, *bounds], limit=limit)
        if len(rows) == limit:
            return rows
    return _among_all(session, search, bounds, limit=limit)


def _count(session: Session, lead: Lead, bounds: list[Any]) -> int:
    """How many events the filter has, one more than it is counted up to at most."""
    some = select(literal(1)).select_from(AuditEntry).where(lead.condition, *bounds).limit(lead.most + 1)
    return session.scalar(select(func.count()).select_from(some.subquery())) or 0


def _actions(session: Session, prefix: str) -> Sequence[str]:
    """The actions that begin so; one more than MOST_ACTIONS at most. Jumps from one to the next in the index."""
    begins = _begins(AuditEntry.action, prefix)
    first = select(AuditEntry.action).where(begins).order_by(AuditEntry.action).limit(1)
    jump = first.cte("jump", recursive=True)
    following = aliased(AuditEntry)
    onward = (
        select(following.action)
        .where(following.action > jump.c.action, following.action < prefix + _LAST_LETTER)
        .order_by(following.action)
        .limit(1)
        .scalar_subquery()
    )
    jump = jump.union_all(select(onward).where(jump.c.action.is_not(None)))
    query = select(jump.c.action).where(jump.c.action.is_not(None)).limit(MOST_ACTIONS + 1)
    return session.scalars(query).all()


def _of_actions(session: Session, actions: Sequence[str], bounds: list[Any], *, limit: int) -> Sequence[AuditEntry]:
    """The newest of each action, merged."""
    each = func.unnest(list(actions), type_=String(collation="C")).table_valued("action", name="each").render_derived()
    newest = select(AuditEntry.sequence, AuditEntry.time).where(AuditEntry.action == each.c.action, *bounds)
    one = newest.order_by(*_NEWEST).limit(limit).lateral("one")
    first = select(one.c.sequence).select_from(each.join(one, true()))
    first = first.order_by(one.c.time.desc(), one.c.sequence.desc()).limit(limit)
    query = select(AuditEntry).where(AuditEntry.sequence.in_(first))
    return session.scalars(query.order_by(*_NEWEST)).all()


def _among_newest(session: Session, search: _Search, bounds: list[Any], *, limit: int) -> Sequence[AuditEntry]:
    # Their places first, which an index alone gives in order; then one event after the other until there are enough. Of
    # whole events PostgreSQL would find all and sort them where it expects few, as of what happened only long ago.
    places = select(AuditEntry.time, AuditEntry.sequence).where(*bounds).order_by(*_NEWEST).limit(WINDOW).subquery()
    at_place = select(AuditEntry).where(AuditEntry.sequence == places.c.sequence, *search.conditions(AuditEntry))
    event = at_place.limit(1).lateral()
    query = select(aliased(AuditEntry, event)).select_from(places.join(event, true()))
    return session.scalars(query.order_by(places.c.time.desc(), places.c.sequence.desc()).limit(limit)).all()


def _among_all(session: Session, search: _Search, bounds: list[Any], *, limit: int) -> Sequence[AuditEntry]:
    keys = select(AuditEntry.time, AuditEntry.sequence).where(*bounds)
    # Materialized: planned for all of them, not for the first few in order.
    found = keys.where(*search.conditions(AuditEntry)).cte("found").prefix_with("MATERIALIZED")
    first = select(found.c.sequence).order_by(found.c.time.desc(), found.c.sequence.desc()).limit(limit)
    query = select(AuditEntry).where(AuditEntry.sequence.in_(first))
    return session.scalars(query.order_by(*_NEWEST)).all()


def _earlier(before: _Place | None) -> list[Any]:
    if before is None:
        return []
    moment, sequence = before
    earlier = (AuditEntry.time < moment) | ((AuditEntry.time == moment) & (AuditEntry.sequence < sequence))
    # The first condition alone bounds the index scan.
    return [AuditEntry.time <= moment, earlier]


def _in_time(wanted: Filter) -> list[Any]:
    found = []
    if wanted.start is not None:
        found.append(AuditEntry.time >= wanted.start)
    if wanted.end is not None:
        found.append(AuditEntry.time < wanted.end)
    return found


def _is_actor(actor: str, entry: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = (entry.actor_id if is_uuid(actor) else entry.actor_name) == actor
    return found


def _begins(column: Any, prefix: str) -> ColumnElement[bool]:
    return and_(column >= prefix, column < prefix + _LAST_LETTER)


def _has_request_id(request_id: str, entry: Any) -> list[ColumnElement[bool]]:
    """It is one of the words, by which it is found."""
    return [entry.words.contains(split_words(request_id)), entry.request_id == request_id]
