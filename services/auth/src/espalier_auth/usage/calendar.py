"""Periods of limits: days and months as the calendar of a time zone has them, with its summer time."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from espalier_auth.usage.models import Period


@dataclass(frozen=True)
class Span:
    """From `start` on, before `end`; None where there is no such bound."""

    start: datetime | None
    end: datetime | None


def span(period: Period, time_zone: str, now: datetime) -> Span:
    """The day or month in which the moment lies, in UTC. A day may have 23 or 25 hours."""
    if period is Period.NONE:
        return Span(None, None)
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).date()
    first = today if period is Period.DAY else today.replace(day=1)
    # 32 days after the first of a month is always in the next one.
    after = first + timedelta(days=1) if period is Period.DAY else (first + timedelta(days=32)).replace(day=1)
    return Span(_midnight(first, zone), _midnight(after, zone))


def is_time_zone(name: str) -> bool:
    """Whether there is a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # Where the clock jumps over midnight, the moment of the jump; where it strikes twice, the first.
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
