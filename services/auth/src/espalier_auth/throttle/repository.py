"""Every query about tries of passwords.

A try is one row less to lock and one statement less to send when the rows are the counters themselves: `INSERT … ON
CONFLICT DO UPDATE` waits for whoever counts in the same bucket, adds to what he left, and gives the sum. All statements
go through the buckets in one order, or two of them would wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, DateTime, Float, Text, bindparam, case, cast, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from espalier_auth.models import table_of
from espalier_auth.throttle.models import PasswordCount


@dataclass(frozen=True)
class Bucket:
    """Where a try counts, and how long after the last one it is remembered."""

    name: str
    kept: timedelta


@dataclass(frozen=True)
class Count:
    """Unix times: of failures, the oldest first, and of the beginning of each check under way, by the try's id."""

    failed: list[float]
    running: dict[str, float]


def begin_try(session: Session, buckets: Sequence[Bucket], try_id: str, now: datetime) -> dict[str, Count]:
    """Counts a check that begins, on every replica; gives what its buckets hold now, this try included."""
    rows = session.execute(_beginning(), _values(buckets, now) | {"id": try_id, "now": now.timestamp()})
    return {row.bucket: Count(row.failed, row.running) for row in rows}


def fail_try(
    session: Session, buckets: Sequence[Bucket], try_id: str, *, now: datetime, endless: str, since: datetime
) -> None:
    """The check ended and failed. What failed before `since` is forgotten, but in the bucket `endless`."""
    times = {"now": now.timestamp(), "since": since.timestamp()}
    session.execute(_failing(), _values(buckets, now) | {"id": try_id, "endless": endless, **times})


def end_try(session: Session, buckets: Sequence[Bucket], try_id: str, *, now: datetime, clear: str) -> None:
    """The check ended and counts for nothing; nor does what failed before in the bucket `clear`."""
    session.execute(_ending(), _values(buckets, now) | {"id": try_id, "clear": clear})


def forget(session: Session, bucket: str) -> None:
    """Begins anew; checks under way stay."""
    row = table_of(PasswordCount).update().where(PasswordCount.bucket == bucket)
    session.execute(row.values(failed=[]))


def delete_old(session: Session, now: datetime) -> None:
    """Forgets what does not count any more."""
    session.execute(delete(PasswordCount).where(PasswordCount.kept_until < now))


def _values(buckets: Sequence[Bucket], now: datetime) -> dict[str, Any]:
    return {"buckets": [each.name for each in buckets], "kept": [now + each.kept for each in buckets]}


@cache
def _beginning() -> ReturningInsert[Any]:
    begun = func.jsonb_build_object(cast(bindparam("id"), Text), bindparam("now", type_=Float))
    statement = _put(running=begun)
    count, more = table_of(PasswordCount).c, statement.excluded
    update = {"running": count.running.op("||")(more.running), "kept_until": more.kept_until}
    return _updating(statement, update).returning(count.bucket, count.failed, count.running)


@cache
def _failing() -> Insert:
    now = func.jsonb_build_array(bindparam("now", type_=Float))
    statement = _put(failed=now)
    count, more = table_of(PasswordCount).c, statement.excluded
    since = case((count.bucket == bindparam("endless"), 0.0), else_=bindparam("since", type_=Float))
    recent = func.jsonb_path_query_array(
        count.failed, literal_column("'$[*] ? (@ > $since)'"), func.jsonb_build_object("since", since)
    )
    update = {
        "failed": recent.op("||")(more.failed),
        "running": count.running.op("-")(cast(bindparam("id"), Text)),
        "kept_until": more.kept_until,
    }
    return _updating(statement, update)


@cache
def _ending() -> Insert:
    statement = _put()
    count = table_of(PasswordCount).c
    update = {
        "failed": case((count.bucket == bindparam("clear"), literal_column("'[]'::jsonb")), else_=count.failed),
        "running": count.running.op("-")(cast(bindparam("id"), Text)),
    }
    return _updating(statement, update)


def _put(*, failed: Any = None, running: Any = None) -> Insert:
    columns = ("bucket", "kept")
    arrays = (cast(bindparam("buckets"), ARRAY(Text)), cast(bindparam("kept"), ARRAY(DateTime(timezone=True))))
    given = func.unnest(*arrays).table_valued(*columns, name="given").render_derived()
    none_failed: Any
    none_running: Any
    none_failed, none_running = literal_column("'[]'::jsonb"), literal_column("'{}'::jsonb")
    row = select(
        given.c.bucket,
        none_failed if failed is None else failed,
        none_running if running is None else running,
        given.c.kept,
    )
    names = ["bucket", "failed", "running", "kept_until"]
    return insert(table_of(PasswordCount)).from_select(names, row.order_by(given.c.bucket))


def _updating(statement: Insert, update: dict[str, Any]) -> Insert:
    return statement.on_conflict_do_update(index_elements=[table_of(PasswordCount).c.bucket], set_=update)
