"""Every select and insert on metric points and logs. Inserts are idempotent: the same twice is there once.

Whoever inserts holds the lock of the run, so that ids become visible in their order and an id is a cursor.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_training_orchestrator.runs.checkpoints import MAX_TOKENS
from espalier_training_orchestrator.telemetry.models import LogChunk, MetricPoint

ROWS_AT_ONCE = 500
TOKENS = "train/tokens"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The values of one line of metrics.jsonl."""

    step: int
    epoch: float
    at: datetime
    values: Mapping[str, float | str]
    """Numbers; NaN and infinities as the strings "NaN", "Infinity", "-Infinity"."""

    @property
    def series(self) -> str:
        """Names which values these are: one step may have a line of training and one of evaluation."""
        return hashlib.blake2b("\n".join(sorted(self.values)).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A piece of a log."""

    rank: int
    offset: int
    data: bytes


def add_points(session: Session, run_id: str, attempt: int, points: Sequence[Measured]) -> None:
    """Stores points that are not there yet."""
    rows = [
        {
            "run_id": run_id,
            "attempt": attempt,
            "step": point.step,
            "series": point.series,
            "epoch": point.epoch,
            "at": point.at,
            "values": dict(point.values),
        }
        for point in points
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        session.execute(insert(MetricPoint).on_conflict_do_nothing(), rows[start : start + ROWS_AT_ONCE])


def add_log(session: Session, run_id: str, attempt: int, piece: Printed) -> None:
    """Stores a piece; of two that begin at the same byte the longer stays."""
    row = {
        "run_id": run_id,
        "attempt": attempt,
        "rank": piece.rank,
        "offset": piece.offset,
        "end": piece.offset + len(piece.data),
        "data": piece.data,
    }
    statement = insert(LogChunk).values(row)
    longer = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "attempt", "rank", "offset"],
            set_={"data": longer.data, "end": longer.end},
            where=LogChunk.end < longer.end,
        )
    )


def points_after(session: Session, run_id: str, cursor: int, *, limit: int) -> Sequence[MetricPoint]:
    """Points stored after the cursor (an id), in the order of their storage."""
    query = select(MetricPoint).where(MetricPoint.run_id == run_id, MetricPoint.id > cursor)
    return session.scalars(query.order_by(MetricPoint.id).limit(limit)).all()


def points_by_step(session: Session, run_id: str, after_step: int, *, steps: int) -> Sequence[MetricPoint]:
    """The points of so many steps after that one, by step; of two attempts that measured one step the later's."""
    wanted = (
        select(MetricPoint.step, func.max(MetricPoint.attempt).label("attempt"))
        .where(MetricPoint.run_id == run_id, MetricPoint.step > after_step)
        .group_by(MetricPoint.step)
        .order_by(MetricPoint.step)
        .limit(steps)
        .subquery()
    )
    query = select(MetricPoint).join(
        wanted, and_(MetricPoint.step == wanted.c.step, MetricPoint.attempt == wanted.c.attempt)
    )
    return session.scalars(query.where(MetricPoint.run_id == run_id).order_by(MetricPoint.step, MetricPoint.id)).all()


def last_values(session: Session, run_id: str) -> dict[str, float | str]:
    """The last value of each name over the whole curve."""
    # A name's last value is in the last point of one of the series that have it: they are few, the points are not.
    last = select(MetricPoint).where(MetricPoint.run_id == run_id).distinct(MetricPoint.series)
    last = last.order_by(MetricPoint.series, MetricPoint.step.desc(), MetricPoint.attempt.desc(), MetricPoint.id.desc())
    values: dict[str, float | str] = {}
    for point in sorted(session.scalars(last), key=lambda each: (each.step, each.attempt, each.id)):
        values |= point.values
    return values


def last_step(session: Session, run_id: str, attempt: int) -> int:
    """The highest step that the attempt measured; 0 when none."""
    query = select(func.max(MetricPoint.step)).where(MetricPoint.run_id == run_id, MetricPoint.attempt == attempt)
    return session.scalar(query) or 0


def last_tokens(session: Session, run_id: str, attempt: int) -> int:
    """Tokens of the run at the last step of which the attempt told them; 0 when it never did."""
    query = select(MetricPoint.values).where(MetricPoint.run_id == run_id, MetricPoint.attempt == attempt)
    query = query.where(MetricPoint.values.has_key(TOKENS)).order_by(MetricPoint.step.desc()).limit(1)
    told = (session.scalar(query) or {}).get(TOKENS)
    return int(told) if isinstance(told, int | float) and 0 <= told <= MAX_TOKENS else 0


def log_chunks(session: Session, run_id: str, attempt: int, *, rank: int, offset: int, end: int) -> Sequence[LogChunk]:
    """The pieces that hold any of the bytes from `offset` to `end`, in order."""
    query = select(LogChunk).where(
        LogChunk.run_id == run_id,
        LogChunk.attempt == attempt,
        LogChunk.rank == rank,
        LogChunk.end > offset,
        LogChunk.offset < end,
    )
    return session.scalars(query.order_by(LogChunk.offset)).all()


def log_extents(session: Session, run_id: str, attempt: int, *, rank: int) -> list[tuple[int, int]]:
    """Where the stored pieces begin and end, in order."""
    query = select(LogChunk.offset, LogChunk.end).where(
        LogChunk.run_id == run_id, LogChunk.attempt == attempt, LogChunk.rank == rank
    )
    return [(offset, end) for offset, end in session.execute(query.order_by(LogChunk.offset))]


def log_size(session: Session, run_id: str, attempt: int, *, rank: int) -> int:
    """Offset after the last stored byte."""
    query = select(func.max(LogChunk.end)).where(
        LogChunk.run_id == run_id, LogChunk.attempt == attempt, LogChunk.rank == rank
    )
    return session.scalar(query) or 0
