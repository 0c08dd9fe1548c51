"""Figures of a period against the one before. What nobody measured is None, which is something else than 0."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from espalier_auth.usage import repository
from espalier_auth.usage.calendar import Span
from espalier_auth.usage.models import TOKENS, USES, Kind
from espalier_auth.usage.repository import Extent

TOP = 10
HOUR = 3600.0  # seconds


@dataclass(frozen=True)
class Figure:
    """In the period and in the one before; None where nothing was measured."""

    value: float | None
    before: float | None


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """All figures of a period."""

    active_users: Figure
    requests: Figure
    tokens: Figure
    gpu_hours: Figure
    success_rate: Figure
    queue_wait_seconds: Figure
    top_users: list[tuple[str, float]]
    top_models: list[tuple[str, float]]
    trained_tokens: Figure


def statistics(session: Session, *, start: datetime, end: datetime, users: ColumnElement[bool]) -> Statistics:
    """The figures from `start` to before `end`; the period before is as long and ends at `start`."""
    now, before = (Extent(Span(*each), users) for each in ((start, end), (start - (end - start), start)))

    def figure(kinds: Iterable[Kind], measure: Callable[[Extent], float | None], *, trained: bool = False) -> Figure:
        # Before the first report of a kind it was not measured at all; after it, no entry means that none was used.
        since = repository.first_entry_at(session, kinds, trained=trained)
        values = [
            measure(each) if since is not None and each.span.end and since < each.span.end else None
            for each in (now, before)
        ]
        return Figure(*values)

    def amount(*kinds: Kind) -> Figure:
        return figure(kinds, lambda period: repository.sum_of(session, kinds, period))

    return Statistics(
        active_users=figure(Kind, lambda period: repository.count_users(session, period)),
        requests=amount(Kind.REQUESTS),
        tokens=amount(*TOKENS),
        gpu_hours=figure(
            [Kind.GPU_SECONDS], lambda period: repository.sum_of(session, [Kind.GPU_SECONDS], period) / HOUR
        ),
        success_rate=figure(USES, lambda period: repository.share_of_successes(session, USES, period)),
        queue_wait_seconds=figure(Kind, lambda period: repository.mean_queue_wait(session, period)),
        top_users=repository.ranking(session, "user_id", kinds=TOKENS, extent=now, limit=TOP),
        top_models=repository.ranking(session, "model", kinds=TOKENS, extent=now, limit=TOP),
        trained_tokens=figure(
            TOKENS, lambda period: repository.sum_of(session, TOKENS, period, trained=True), trained=True
        ),
    )
