"""Every query on the ledger, limits and reservations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.access.models import Group
from espalier_auth.models import GroupMember, User
from espalier_auth.usage.calendar import Span
from espalier_auth.usage.flow import UsageFilter, Users, between, entries, step_of
from espalier_auth.usage.levels import levels
from espalier_auth.usage.models import SERVING, TOKENS, TRAINING, Hold, Kind, Quota, UsageEntry
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate

DIMENSIONS = ("user", "group", "model", "source")
# As the partial index says it.
_TRAINED = UsageEntry.source == literal_column("'training'")


def add_entries(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Adds those that are not there yet."""
    if rows:
        session.execute(insert(UsageEntry).values(list(rows)).on_conflict_do_nothing(index_elements=["id"]))


def sums(session: Session, wanted: UsageFilter, *, grain: str, group_by: Sequence[str], limit: int) -> Sequence[Any]:
    """Sums by time step (`hour`, `day` or empty for one step) and dimensions, with names as in DIMENSIONS; by time."""
    if grain == "hour":
        # Its index holds all that is read, in order; taking that for jumps on a disk, the planner reads the table.
        session.execute(text("SET LOCAL random_page_cost = 1.1"))
    found: list[Select[Any]] = []
    if wanted.kind is not Kind.STORED_BYTES:
        flows = _flows(wanted, grain=grain, group_by=group_by)
        # PostgreSQL cannot guess how few hours there are, and would sort all entries to have their sums in order.
        found.append(select(flows.cte("flows").prefix_with("MATERIALIZED")) if grain == "hour" else flows)
    if wanted.kind in (None, Kind.STORED_BYTES):
        found.append(levels(wanted, grain=grain, group_by=group_by))
    both = union_all(*found).subquery()
    order = [both.c[name] for name in ("step", "kind", *group_by)]
    return session.execute(select(both).order_by(*order).limit(limit)).all()


def _flows(wanted: UsageFilter, *, grain: str, group_by: Sequence[str]) -> Select[Any]:
    """Columns step, kind, amount, estimated and one for each dimension."""
    period = (wanted.start, wanted.end, wanted.narrow)
    flow = entries(*period).subquery() if grain == "hour" else between(*period)
    dimensions: dict[str, Any] = {"user": flow.c.user_id, "model": flow.c.model, "source": flow.c.source}
    step = step_of(flow.c.at, wanted, grain).label("step")
    sums_of = [func.sum(flow.c[name]).label(name) for name in ("amount", "estimated")]
    query: Any = select(step, flow.c.kind, *sums_of).select_from(flow)
    if "group" in group_by or wanted.group_id:
        query = query.join(GroupMember, cast(GroupMember.user_id, String) == flow.c.user_id)
        dimensions["group"] = GroupMember.group_id
    if wanted.group_id:
        query = query.where(GroupMember.group_id == wanted.group_id)
    keys = [dimensions[name].label(name) for name in group_by]
    told: Select[Any] = query.add_columns(*keys).group_by(step, flow.c.kind, *keys)
    return told


def user_names(session: Session, user_ids: Iterable[str]) -> dict[str, str]:
    """Names by id; those who are no users are missing."""
    ids = {user_id for user_id in set(user_ids) if is_uuid(user_id)}
    rows = session.execute(select(User.id, User.username).where(User.id.in_(ids))) if ids else ()
    return {str(user_id): name for user_id, name in rows}


def group_names(session: Session, group_ids: Iterable[str], principal: Principal) -> dict[str, str]:
    """Names by id; groups that the caller may not see are missing."""
    ids = set(group_ids)
    query = select(Group.id, Group.name).where(Group.id.in_(ids))
    if principal.scope != "all":
        query = query.join(GroupMember, GroupMember.group_id == Group.id).where(
            GroupMember.user_id == principal.subject
        )
    rows = session.execute(query) if ids else ()
    return {str(group_id): name for group_id, name in rows}


def user_exists(session: Session, user_id: str) -> bool:
    """Whether there is this user."""
    return session.scalar(select(User.id).where(User.id == user_id)) is not None


def bound_name(session: Session, quota: Quota) -> str:
    """Name of the user or group that a limit binds."""
    of_group = select(Group.name).where(Group.id == quota.group_id)
    return session.scalar(select(User.username).where(User.id == quota.user_id) if quota.user_id else of_group) or ""


def find_quota(session: Session, quota_id: str, *, lock: bool = False) -> Quota | None:
    """One limit; locked, nobody reserves against it meanwhile."""
    query = select(Quota).where(Quota.id == quota_id)
    return session.scalar(query.with_for_update() if lock else query)


@dataclass(frozen=True, kw_only=True)
class QuotaFilter:
    """Which limits; empty texts and None do not restrict."""

    user_id: str = ""
    group_id: str = ""
    kind: Kind | None = None


def list_quotas(session: Session, principal: Principal, *, wanted: QuotaFilter, page: PageRequest) -> Page[Quota]:
    """The limits that the caller may see, oldest first: of those whose data he sees, and of his groups."""
    query = select(Quota)
    if wanted.user_id:
        query = query.where(Quota.user_id == wanted.user_id)
    if wanted.group_id:
        query = query.where(Quota.group_id == wanted.group_id)
    if wanted.kind:
        query = query.where(Quota.kind == wanted.kind)
    if principal.scope != "all":
        groups = select(GroupMember.group_id).where(GroupMember.user_id == principal.subject)
        query = query.where(or_(Quota.user_id.in_({principal.subject, *principal.peers}), Quota.group_id.in_(groups)))
    return paginate(session, query, order=(Quota.created_at, Quota.id), page=page)


def quotas_of(session: Session, user_id: str, *, lock: bool = False) -> Sequence[Quota]:
    """The limits that bind a user, his groups' too. Locked in one order, so that two callers never wait in a ring."""
    if not is_uuid(user_id):
        return []  # a service in its own name
    groups = select(GroupMember.group_id).where(GroupMember.user_id == user_id)
    query = select(Quota).where(or_(Quota.user_id == user_id, Quota.group_id.in_(groups))).order_by(Quota.id)
    return session.scalars(query.with_for_update() if lock else query).all()


def used_and_held(session: Session, quota: Quota, span: Span, now: datetime) -> float:
    """What counts against a limit now. One statement: what is settled meanwhile is seen as held or as used."""
    held = select(func.coalesce(func.sum(Hold.amount), 0.0)).where(
        _bound(Hold.user_id, quota), Hold.kind.in_(quota.kind.counted), Hold.settled_at.is_(None), Hold.expires_at > now
    )
    total = session.scalar(select(held.scalar_subquery() + _used(quota, span).scalar_subquery()))
    return float(total or 0.0)


def _used(quota: Quota, span: Span) -> Select[Any]:
    entry = UsageEntry
    mine = [_bound(entry.user_id, quota), entry.kind.in_(quota.kind.counted)]
    if quota.kind in TOKENS:
        mine.append(entry.source != TRAINING)
    if quota.kind.is_level:
        newest = select(entry.amount).distinct(entry.user_id).where(*mine).order_by(entry.user_id, entry.at.desc())
        amounts = newest.subquery()
        return select(func.coalesce(func.sum(amounts.c.amount), 0.0))
    return select(func.coalesce(func.sum(entry.amount), 0.0)).where(*mine, entry.at >= span.start, entry.at < span.end)


def _bound(user_id: Any, quota: Quota) -> ColumnElement[bool]:
    if quota.user_id is not None:
        mine: ColumnElement[bool] = user_id == quota.user_id
        return mine
    members = select(cast(GroupMember.user_id, String)).where(GroupMember.group_id == quota.group_id)
    theirs: ColumnElement[bool] = user_id.in_(members)
    return theirs


def holds_of(session: Session, reservation_id: str) -> Sequence[Hold]:
    """What a reservation holds or held."""
    return session.scalars(select(Hold).where(Hold.reservation_id == reservation_id)).all()


def add_holds(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Holds; of two callers with one id the first is right."""
    if rows:
        session.execute(insert(Hold).values(list(rows)).on_conflict_do_nothing())


def settle(session: Session, reservation_ids: Iterable[str], *, now: datetime) -> None:
    """Ends reservations; nothing happens to those that have ended or never were."""
    ids = list(reservation_ids)
    if ids:
        session.execute(
            update(Hold).where(Hold.reservation_id.in_(ids), Hold.settled_at.is_(None)).values(settled_at=now)
        )


def forget_holds(session: Session, *, before: datetime) -> None:
    """Deletes those that expired before."""
    session.execute(delete(Hold).where(Hold.expires_at < before))


def first_entry_at(session: Session, kinds: Iterable[Kind], *, trained: bool = False) -> datetime | None:
    """When the first use of one of these kinds was reported, or the first by a training; None when none ever was."""
    query = select(func.min(UsageEntry.at))
    if trained:
        query = query.where(_TRAINED)
    # Each on its own: its index has that row at its beginning.
    firsts = [session.scalar(query.where(UsageEntry.kind == kind)) for kind in kinds]
    return min((at for at in firsts if at is not None), default=None)


@dataclass(frozen=True)
class Measured:
    """Sums of one part of a period: of a kind, or of a user or model over all kinds."""

    amount: float
    trained: float
    """Of the amount, what trainings used."""
    tokens: float
    at_work: bool
    """Anything but servers that go on running."""
    ended: int
    succeeded: int
    waits: int
    wait_seconds: float


Measurements = dict[tuple[str, str], Measured]
"""By ("kind", its name), ("user", id) and ("model", its name)."""


def measure(session: Session, start: datetime, end: datetime, users: Users) -> Measurements:
    """Reads what was used once, and sums it by kind, by user and by model."""
    flow = between(start, end, lambda table: [users(table.user_id)])
    c = flow.c
    each = (c.kind, c.user_id, c.model)
    query = select(
        *each,
        func.sum(c.amount),
        func.coalesce(func.sum(c.amount).filter(c.source == TRAINING), 0.0),
        func.coalesce(func.sum(c.amount).filter(c.kind.in_(TOKENS)), 0.0),
        func.bool_or(c.source != SERVING),
        *(func.sum(each) for each in (c.ended, c.succeeded, c.waits, c.wait_seconds)),
        func.grouping(*each),
    ).group_by(func.grouping_sets(*(tuple_(column) for column in each)))
    found: Measurements = {}
    for *names, amount, trained, tokens, at_work, ended, succeeded, waits, seconds, absent in session.execute(query):
        # A bit for each name that is not told apart, the first the highest.
        which = {0b011: 0, 0b101: 1, 0b110: 2}[absent]
        found[("kind", "user", "model")[which], str(names[which])] = Measured(
            amount, trained, tokens, at_work, int(ended), int(succeeded), int(waits), seconds
        )
    return found
