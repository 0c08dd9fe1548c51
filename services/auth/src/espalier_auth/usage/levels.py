"""Bytes that are kept: what there is at the end of each time step, which no sum over time is.

Each report of an owner is whole and holds until his next one. So what was kept before a period began is in it, a step
without a report has what the one before had, and a model that a report does not name keeps nothing any more.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Float, Select, String, Subquery, case, cast, func, literal, select, true
from sqlalchemy.dialects.postgresql import array

from espalier_auth.models import GroupMember
from espalier_auth.usage.flow import WIDTHS, UsageFilter, step_of
from espalier_auth.usage.models import Kind, UsageEntry
from espalier_common.db import utc_now


def levels(wanted: UsageFilter, *, grain: str, group_by: Sequence[str]) -> Select[Any]:
    """Columns step, kind, amount, estimated and one for each dimension; no step that is still to come."""
    changes = _changes(wanted, group_by)
    keys = [changes.c[name] for name in group_by]
    step = step_of(changes.c.at, wanted, grain).label("step")
    # By how much it rises and falls in a step, and what it is then.
    moved = select(step, *keys, func.sum(changes.c.amount).label("change")).group_by(step, *keys).subquery()
    over: dict[str, Any] = {"partition_by": [moved.c[name] for name in group_by] or None, "order_by": moved.c.step}
    level: Any = select(
        moved.c.step,
        *(moved.c[name] for name in group_by),
        func.sum(moved.c.change).over(**over).label("amount"),
        func.lead(moved.c.step).over(**over).label("next"),
    ).subquery()
    found: Any = select(level.c.step)
    if grain:
        # Until the step before the next change.
        last = step_of(literal(min(wanted.end, utc_now()) - timedelta(microseconds=1)), wanted, grain)
        width = literal(WIDTHS[grain])
        until = func.coalesce(level.c.next - width, func.greatest(level.c.step, last))
        steps = func.generate_series(level.c.step, until, width).table_valued("step").render_derived().lateral()
        found = select(steps.c.step).select_from(level.join(steps, true()))
    told: Select[Any] = found.add_columns(
        literal(Kind.STORED_BYTES.value).label("kind"),
        level.c.amount,
        literal(0.0, Float).label("estimated"),
        *(level.c[name] for name in group_by),
    )
    return told


def _changes(wanted: UsageFilter, group_by: Sequence[str]) -> Subquery:
    """Each report of the period adds its amounts when it begins to hold, and takes them away when it ends."""
    reports = _reports(wanted)
    columns: dict[str, Any] = {"user": reports.c.user_id, "source": reports.c.source}
    joined: Any = reports
    amount: Any = reports.c.amount
    if wanted.model or "model" in group_by:
        parts = func.jsonb_each_text(reports.c.parts).table_valued("key", "value").lateral()
        joined, columns["model"], amount = joined.join(parts, true()), parts.c.key, cast(parts.c.value, Float)
    if wanted.group_id or "group" in group_by:
        joined = joined.join(GroupMember, cast(GroupMember.user_id, String) == reports.c.user_id)
        columns["group"] = GroupMember.group_id
    both_ends = func.unnest(array([reports.c.since, reports.c.until]), array([1.0, -1.0]))
    ends = both_ends.table_valued("at", "sign").render_derived().lateral()
    keys = [columns[name].label(name) for name in group_by]
    query: Any = select(ends.c.at, (amount * ends.c.sign).label("amount"), *keys)
    query = query.select_from(joined.join(ends, ends.c.at.is_not(None)))
    if wanted.model:
        query = query.where(columns["model"] == wanted.model)
    if wanted.group_id:
        query = query.where(columns["group"] == wanted.group_id)
    changes: Subquery = query.subquery()
    return changes


def _reports(wanted: UsageFilter) -> Subquery:
    """Those that hold at some time of the period."""
    entry = UsageEntry
    told = (
        select(
            entry.user_id,
            entry.source,
            entry.amount,
            func.coalesce(entry.by_model, func.jsonb_build_object(entry.model, entry.amount)).label("parts"),
            entry.at,
            func.lead(entry.at).over(partition_by=entry.user_id, order_by=entry.at).label("until"),
        )
        .where(entry.kind == Kind.STORED_BYTES, entry.at < wanted.end, wanted.users(entry.user_id))
        .subquery()
    )
    since = case((told.c.at < wanted.start, wanted.start), else_=told.c.at).label("since")
    holds = told.c.until.is_(None) | (told.c.until > wanted.start)
    kept = (told.c.user_id, told.c.source, told.c.amount, told.c.parts, since, told.c.until)
    return select(*kept).where(holds).subquery()
