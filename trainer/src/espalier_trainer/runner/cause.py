"""Why ranks died, as a sentence: from their exit codes and their last words."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from espalier_trainer.exit_codes import ExitCode

ENDS_IN_ORDER = frozenset({ExitCode.FINISHED, ExitCode.STOPPED, ExitCode.PREEMPTED, ExitCode.DISCARDED})

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_RANK_PREFIX = re.compile(r"^\[(default|rank)\d+\]:\s?")
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|the disk is full", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|Cannot allocate memory|^MemoryError", re.IGNORECASE)
_PORT_TAKEN = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
# What the other ranks say when one of them is gone: true, but not the cause.
_ECHO = re.compile(
    r"Connection (closed|reset|refused)|closed by (the )?peer|Broken pipe|gloo/|NCCL|ProcessGroup|TCPStore|DistStore|"
    r"recvValue|watchdog|remote process (has )?(terminated|exited)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RankExit:
    """How a rank ended. `killed` says that the runner killed it, so that its end explains nothing."""

    rank: int
    code: int
    """Exit code; negative: the signal."""
    tail: Sequence[str] = ()
    killed: bool = False

    @property
    def is_failure(self) -> bool:
        """It ended by itself and not in order."""
        return not self.killed and self.code not in ENDS_IN_ORDER

    @property
    def is_echo(self) -> bool:
        """It only noticed that another rank was gone."""
        if self.code < 0:
            return self.code == -signal.SIGABRT
        return self.code == ExitCode.CRASHED and bool(_ECHO.search(last_words(self.tail)))


@dataclass(frozen=True)
class Cause:
    """The end of an attempt that failed."""

    exit_code: int
    reason: str
    message: str
    signal: str | None = None
    rank: int = 0


def first_cause(exits: Sequence[RankExit], *, disk_full: bool = False) -> Cause:
    """The cause of a failure; `exits` in the order in which the ranks ended, with at least one failure among them."""
    failures = [end for end in exits if end.is_failure]
    # A rank that merely noticed the loss of another may be quicker to die of it than the other was.
    guilty = next((end for end in failures if not end.is_echo), failures[0])
    if disk_full and guilty.code != ExitCode.USER_ERROR:
        return _disk_full(guilty)
    return _cause_of(guilty)


def last_words(tail: Sequence[str]) -> str:
    """The line that says most: the last `error: …`, else the last line of the last traceback, else the last line."""
    lines = [_RANK_PREFIX.sub("", _ANSI.sub("", line)).rstrip() for line in tail]
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ").strip()
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if starts:
        for line in lines[starts[-1] + 1 :]:
            if line and not line[0].isspace():
                return line.strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _cause_of(end: RankExit) -> Cause:
    words = last_words(end.tail)
    if end.code < 0:
        return _killed(end)
    if _DISK_FULL.search(words):
        return _disk_full(end)
    said = words or f"it ended with exit code {end.code} and said nothing"
    if end.code == ExitCode.USER_ERROR:
        return Cause(ExitCode.USER_ERROR, "INVALID_CONFIGURATION", said, rank=end.rank)
    if end.code == ExitCode.INFRASTRUCTURE or _PORT_TAKEN.search(words):
        return Cause(ExitCode.INFRASTRUCTURE, "INFRASTRUCTURE", f"rank {end.rank}: {said}", rank=end.rank)
    if end.code == ExitCode.OUT_OF_MEMORY or _OUT_OF_MEMORY.search(words):
        message = f"rank {end.rank} ran out of memory: {said}"
        return Cause(ExitCode.OUT_OF_MEMORY, "OUT_OF_MEMORY_OR_KILLED", message, rank=end.rank)
    code = end.code if end.code in (134, 139) else ExitCode.CRASHED
    return Cause(code, "CRASHED", f"rank {end.rank}: {said}", rank=end.rank)


def _killed(end: RankExit) -> Cause:
    try:
        name = signal.Signals(-end.code).name
    except ValueError:
        name = f"signal {-end.code}"
    if end.code == -signal.SIGKILL:
        message = f"rank {end.rank} was killed (SIGKILL); out of memory or killed by hand"
        return Cause(ExitCode.OUT_OF_MEMORY, "OUT_OF_MEMORY_OR_KILLED", message, signal=name, rank=end.rank)
    words = last_words(end.tail)
    message = f"rank {end.rank} was ended by a signal ({name})" + (f"; its last line: {words}" if words else "")
    return Cause(128 - end.code, "CRASHED", message, signal=name, rank=end.rank)


def _disk_full(end: RankExit) -> Cause:
    message = f"the disk is full; free some space, then start the run again (rank {end.rank} was writing)"
    return Cause(ExitCode.INFRASTRUCTURE, "DISK_FULL", message, rank=end.rank)
