"""A bound on refusals: an address that is refused a thousand times a minute must not fill the database.

Of each address and minute the first 30 are told one by one, of all addresses together the first 600; of what is beyond
one event each few seconds says how many there were, so that a service that is killed loses little of it.
"""

import time
from collections import Counter
from collections.abc import Callable

WINDOW = 60.0  # seconds
COUNTED = 5.0  # seconds between two tellings of what was left out
PER_ADDRESS = 30
PER_SERVICE = 600
MAX_COUNTED = 100  # addresses whose left-out refusals are counted apart; the others together, under no address


class RefusalLimit:
    """Counts refusals by address over windows of a minute. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = self._counted = clock()
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

    def take_left_out(self, *, now: bool = False) -> tuple[dict[str, int], float]:
        """How many were left out, by address, and in how many seconds, where that is due or asked for `now`."""
        time = self._clock()
        if time - self._begun >= WINDOW:
            self._begun = time
            self._told.clear()
        elif not now and time - self._counted < COUNTED:
            return {}, 0.0
        left_out, seconds = dict(self._left_out), time - self._counted
        self._counted = time
        self._left_out.clear()
        return left_out, seconds
