"""Figures of a period against the one before. What nobody measured is None, which is something else than 0."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from espalier_auth.usage import repository
from espalier_auth.usage.flow import Users
from espalier_auth.usage.models import TOKENS, USES, Kind
from espalier_auth.usage.repository import Measured, Measurements

TOP = 10
HOUR = 3600.0  # seconds
GPU = (Kind.GPU_SECONDS,)


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


def statistics(session: Session, *, start: datetime, end: datetime, users: Users) -> Statistics:
    """The figures from `start` to before `end`; the period before is as long and ends at `start`."""
    spans = ((start, end), (start - (end - start), start))
    parts = [(repository.measure(session, *each, users), each[1]) for each in spans]

    def figure(
        kinds: Iterable[Kind], measure: Callable[[Measurements], float | None], *, trained: bool = False
    ) -> Figure:
        # Before the first report of a kind it was not measured at all; after it, no entry means that none was used.
        since = repository.first_entry_at(session, kinds, trained=trained)
        return Figure(*(measure(found) if since is not None and since < until else None for found, until in parts))

    def amount(*kinds: Kind) -> Figure:
        return figure(kinds, lambda found: sum(one.amount for one in _of(found, kinds)))

    return Statistics(
        active_users=figure(Kind, _active_users),
        requests=amount(Kind.REQUESTS),
        tokens=amount(*TOKENS),
        gpu_hours=figure(GPU, lambda found: sum(one.amount for one in _of(found, GPU)) / HOUR),
        success_rate=figure(USES, _success_rate),
        queue_wait_seconds=figure(Kind, _queue_wait),
        top_users=_top(parts[0][0], "user"),
        top_models=_top(parts[0][0], "model"),
        trained_tokens=figure(TOKENS, lambda found: sum(one.trained for one in _of(found, TOKENS)), trained=True),
    )


def _of(found: Measurements, kinds: Iterable[Kind]) -> list[Measured]:
    return [found[key] for kind in kinds if (key := ("kind", kind.value)) in found]


def _active_users(found: Measurements) -> float:
    return sum(one.at_work for (what, _), one in found.items() if what == "user")


def _success_rate(found: Measurements) -> float | None:
    ended = sum(one.ended for one in _of(found, USES))
    return sum(one.succeeded for one in _of(found, USES)) / ended if ended else None


def _queue_wait(found: Measurements) -> float | None:
    waits = sum(one.waits for one in _of(found, Kind))
    return sum(one.wait_seconds for one in _of(found, Kind)) / waits if waits else None


def _top(found: Measurements, by: str) -> list[tuple[str, float]]:
    tokens = [(name, one.tokens) for (what, name), one in found.items() if what == by and name and one.tokens]
    return sorted(tokens, key=lambda one: (-one[1], one[0]))[:TOP]
