"""A bound on refusals: an address that is refused a thousand times a minute must not fill the database.

Of each address and minute the first 30 are told one by one, of all addresses together the first 600; then one event
says how many more there were.
"""

import time
from collections import Counter
from collections.abc import Callable

WINDOW = 60.0  # seconds
PER_ADDRESS = 30
PER_SERVICE = 600
MAX_COUNTED = 100  # addresses whose left-out refusals are counted apart; the others together, under no address


class RefusalLimit:
    """Counts refusals by address over windows of a minute. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._told: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        """Whether this refusal is told by itself."""
        if self._told[address] < PER_ADDRESS and self._told.total() < PER_SERVICE:
            self._told[address] += 1
            return True
        counted = address in self._left_out or len(self._left_out) < MAX_COUNTED
        self._left_out[address if counted else ""] += 1
        return False

    def end_window(self, *, now: bool = False) -> dict[str, int]:
        """How many were left out, by address, when the window is over (or is ended `now`); nothing before that."""
        if not now and self._clock() - self._begun < WINDOW:
            return {}
        left_out = dict(self._left_out)
        self._begun = self._clock()
        self._told.clear()
        self._left_out.clear()
        return left_out
