"""Every query on the ledger, limits and reservations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    String,
    cast,
    delete,
    distinct,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.access.models import Group
from espalier_auth.models import GroupMember, User
from espalier_auth.usage.calendar import Span
from espalier_auth.usage.models import SERVING, TOKENS, TRAINING, Hold, Kind, Quota, UsageEntry
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate

DIMENSIONS = ("user", "group", "model", "source")
# As the partial index says it.
_TRAINED = UsageEntry.source == literal_column("'training'")


@dataclass(frozen=True, kw_only=True)
class UsageFilter:
    """Which entries are summed; `users` is the condition on their users."""

    start: datetime
    end: datetime
    users: ColumnElement[bool]
    group_id: str = ""
    model: str = ""
    kind: Kind | None = None


@dataclass(frozen=True)
class Extent:
    """The entries that figures are made of: of a time, and of users."""

    span: Span
    users: ColumnElement[bool]

    def of(self, kinds: Sequence[Kind]) -> tuple[ColumnElement[bool], ...]:
        """The conditions on entries of these kinds."""
        entry = UsageEntry
        return (entry.kind.in_(kinds), entry.at >= self.span.start, entry.at < self.span.end, self.users)


def add_entries(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Adds those that are not there yet."""
    if rows:
        session.execute(insert(UsageEntry).values(list(rows)).on_conflict_do_nothing(index_elements=["id"]))


def sums(session: Session, wanted: UsageFilter, *, grain: str, group_by: Sequence[str], limit: int) -> Sequence[Any]:
    """Sums by time step (`hour`, `day` or empty for one step) and dimensions, with names as in DIMENSIONS; by time."""
    step = func.date_trunc(grain, UsageEntry.at) if grain else literal(wanted.start, UsageEntry.at.type)
    flow = _entries(wanted, step).where(UsageEntry.kind != Kind.STORED_BYTES)
    # What is kept is no sum over time: the newest amount of each user in each step.
    kept = _entries(wanted, step).where(UsageEntry.kind == Kind.STORED_BYTES)
    kept = kept.distinct(literal_column("step"), UsageEntry.user_id)
    kept = kept.order_by(literal_column("step"), UsageEntry.user_id, UsageEntry.at.desc())
    both = flow.union_all(select(kept.subquery())).subquery()
    columns: dict[str, Any] = {"user": both.c.user_id, "model": both.c.model, "source": both.c.source}
    query = select().select_from(both)
    if "group" in group_by or wanted.group_id:
        query = query.join(GroupMember, cast(GroupMember.user_id, String) == both.c.user_id)
        columns["group"] = GroupMember.group_id
    if wanted.group_id:
        query = query.where(GroupMember.group_id == wanted.group_id)
    keys = [columns[name].label(name) for name in group_by]
    query = query.add_columns(both.c.step, both.c.kind, func.sum(both.c.amount).label("amount"), *keys)
    query = query.group_by(both.c.step, both.c.kind, *keys).order_by(both.c.step, both.c.kind, *keys)
    return session.execute(query.limit(limit)).all()


def _entries(wanted: UsageFilter, step: ColumnElement[Any]) -> Select[Any]:
    entry = UsageEntry
    query = select(step.label("step"), entry.kind, entry.user_id, entry.model, entry.source, entry.amount)
    query = query.where(entry.at >= wanted.start, entry.at < wanted.end, wanted.users)
    if wanted.model:
        query = query.where(entry.model == wanted.model)
    if wanted.kind is not None:
        query = query.where(entry.kind == wanted.kind)
    return query


def user_names(session: Session, user_ids: Iterable[str]) -> dict[str, str]:
    """Names by id; those who are no users are missing."""
    ids = {user_id for user_id in user_ids if is_uuid(user_id)}
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


def sum_of(session: Session, kinds: Sequence[Kind], extent: Extent, *, trained: bool = False) -> float:
    """All that was used of these kinds, or of them what trainings used."""
    query = select(func.sum(UsageEntry.amount)).where(*extent.of(kinds))
    return float(session.scalar(query.where(_TRAINED) if trained else query) or 0.0)


def count_users(session: Session, extent: Extent) -> int:
    """Users who used anything; to have a server that goes on running is not to use it."""
    kinds = [kind for kind in Kind if not kind.is_level]
    query = select(func.count(distinct(UsageEntry.user_id))).where(*extent.of(kinds), UsageEntry.source != SERVING)
    return session.scalar(query) or 0


def share_of_successes(session: Session, kinds: Sequence[Kind], extent: Extent) -> float | None:
    """From 0 to 1; None when there was no use."""
    found = session.scalar(select(func.avg(cast(UsageEntry.succeeded, Integer))).where(*extent.of(kinds)))
    return None if found is None else float(found)


def mean_queue_wait(session: Session, extent: Extent) -> float | None:
    """Seconds; None when nothing queued."""
    found = session.scalar(select(func.avg(UsageEntry.queue_wait)).where(*extent.of(list(Kind))))
    return None if found is None else float(found)


def ranking(session: Session, by: str, *, kinds: Sequence[Kind], extent: Extent, limit: int) -> list[tuple[str, float]]:
    """The greatest users (`user_id`) or models (`model`) with their sums."""
    name, total = getattr(UsageEntry, by), func.sum(UsageEntry.amount)
    query = select(name, total).where(*extent.of(kinds), name != "").group_by(name)
    rows = session.execute(query.order_by(total.desc(), name).limit(limit))
    return [(str(key), float(amount)) for key, amount in rows]
