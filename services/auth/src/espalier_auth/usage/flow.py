"""Use between two moments, to be summed: whole days out of their own sums, both ends entry by entry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Float, Subquery, case, cast, func, literal, select, union_all

from espalier_auth.usage.models import Kind, UsageDay, UsageEntry

Narrow = Callable[[Any], Sequence[ColumnElement[bool]]]
"""The conditions on what is summed, given UsageEntry or UsageDay: on kind, user_id, model and source."""

Users = Callable[[Any], ColumnElement[bool]]
"""The condition on whose use is told, given the column that names the user."""

_DAY = timedelta(days=1)
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)  # of the hours and days
WIDTHS = {"hour": timedelta(hours=1), "day": _DAY}


@dataclass(frozen=True, kw_only=True)
class UsageFilter:
    """Which use is told."""

    start: datetime
    end: datetime
    users: Users
    group_id: str = ""
    model: str = ""
    kind: Kind | None = None

    def narrow(self, table: Any) -> list[ColumnElement[bool]]:
        """The conditions on entries, or on sums of them, but for the time and the group."""
        found = [self.users(table.user_id)]
        if self.model:
            found.append(table.model == self.model)
        if self.kind is not None:
            found.append(table.kind == self.kind)
        return found


def step_of(at: Any, wanted: UsageFilter, grain: str) -> ColumnElement[Any]:
    """Beginning of the time step (`hour`, `day` or empty for one of the whole period) in which the moment lies."""
    # A third of date_trunc's work, which is done for each entry.
    return func.date_bin(WIDTHS[grain], at, _ORIGIN) if grain else literal(wanted.start, UsageEntry.at.type)


def between(start: datetime, end: datetime, narrow: Narrow) -> Subquery:
    """Columns at, kind, user_id, model, source, amount, ended, succeeded, waits, wait_seconds, estimated.

    `at` is the beginning of the day in UTC where a day is summed. What is kept is no flow and is left out.
    """
    first, last = _midnight(start + _DAY - timedelta(microseconds=1)), _midnight(end)
    if first >= last:
        return union_all(entries(start, end, narrow)).subquery()
    day = UsageDay
    days: Any = select(
        day.day.label("at"), day.kind, day.user_id, day.model, day.source,
        day.amount, day.ended, day.succeeded, day.waits, day.wait_seconds, day.estimated,
    ).where(day.day >= first, day.day < last, *narrow(day))  # fmt: skip
    ends = [entries(*each, narrow) for each in ((start, first), (last, end)) if each[0] < each[1]]
    return union_all(days, *ends).subquery()


def entries(start: datetime, end: datetime, narrow: Narrow) -> Any:
    """The same columns, entry by entry and at the moment of each."""
    entry = UsageEntry
    succeeded: ColumnElement[bool] = entry.succeeded.is_(True)
    return select(
        entry.at, entry.kind, entry.user_id, entry.model, entry.source, entry.amount,
        cast(case((entry.succeeded.is_(None), 0), else_=1), BigInteger).label("ended"),
        cast(case((succeeded, 1), else_=0), BigInteger).label("succeeded"),
        cast(case((entry.queue_wait.is_(None), 0), else_=1), BigInteger).label("waits"),
        func.coalesce(entry.queue_wait, literal(0.0, Float)).label("wait_seconds"),
        case((entry.estimated, entry.amount), else_=literal(0.0, Float)).label("estimated"),
    ).where(entry.at >= start, entry.at < end, entry.kind != Kind.STORED_BYTES, *narrow(entry))  # fmt: skip


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date(), time(), tzinfo=UTC)
