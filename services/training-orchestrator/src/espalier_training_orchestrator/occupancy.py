"""For how long something had its places on a machine, in the pieces that the ledger of use takes."""

from dataclasses import dataclass
from datetime import datetime, timedelta

QUARTER = timedelta(minutes=15)
"""Midnight is on a quarter of an hour in every time zone, so that sums by hour, day and month are exact in each."""


@dataclass(frozen=True)
class Piece:
    """From `start` on, before `end`; never over the bound of a quarter of an hour."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start).total_seconds()


def pieces(start: datetime, end: datetime) -> list[Piece]:
    """The whole time, cut at the quarters; empty when there is none."""
    found = []
    while start < end:
        cut = min(end, quarter_of(start) + QUARTER)
        found.append(Piece(start, cut))
        start = cut
    return found


def quarter_of(moment: datetime) -> datetime:
    """The quarter of an hour in which the moment lies, by its beginning."""
    return moment.replace(minute=moment.minute - moment.minute % 15, second=0, microsecond=0)


def last_sign(*signs: datetime | None, now: datetime) -> datetime:
    """The newest sign of life, by clocks that may be ahead of ours; now when there is none."""
    return min(now, max((sign for sign in signs if sign is not None), default=now))
