"""The wish to stop: who asked, what is to become of the state, and the file that tells the ranks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

# A signal repeated this soon is the same wish told twice; later it is impatience.
_SAME_WISH_SECONDS = 3.0


class StopMode(StrEnum):
    """What is to become of the state since the last checkpoint."""

    SAVE = "save"
    DISCARD = "discard"


class StopWish:
    """At most one wish; a later one may only be harder."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.mode: StopMode | None = None
        self.by_signal = False
        """Nobody but a signal has asked."""
        self.asked = asyncio.Event()
        self.discarded = asyncio.Event()
        """Nothing is to be saved: the current step is all that is waited for."""
        self.impatient = asyncio.Event()
        """Set when waiting is over: kill."""
        self._file = file
        self._clock = clock
        self._first_signal = 0.0

    def ask(self, mode: StopMode) -> None:
        """The orchestrator asks; said at every heartbeat, so it may come again and again."""
        self.by_signal = False
        self._set(mode)

    def signal(self) -> None:
        """SIGTERM: save, then end. Again, some seconds later: end now."""
        now = self._clock()
        if not self.asked.is_set():
            self.by_signal = True
            self._first_signal = now
            self._set(StopMode.SAVE)
        elif now - self._first_signal > _SAME_WISH_SECONDS:
            self.impatient.set()

    def _set(self, mode: StopMode) -> None:
        if self.mode is mode or self.mode is StopMode.DISCARD:
            return
        self.mode = mode
        # On a full disk the ranks cannot hear of it; then the end of the grace ends them.
        with contextlib.suppress(OSError):
            temporary = self._file.with_name(".stop.tmp")
            temporary.write_text(mode.value, encoding="utf-8")
            temporary.replace(self._file)
        self.asked.set()
        if mode is StopMode.DISCARD:
            self.discarded.set()
