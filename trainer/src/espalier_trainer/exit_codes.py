"""Exit codes that the ranks and the runner share with whoever launched them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What an attempt's end means. Any code not listed is a crash."""

    FINISHED = 0
    CRASHED = 1
    INFRASTRUCTURE = 75
    """A cause outside of the run; trying again is free."""
    USER_ERROR = 78
    """The configuration or the data is wrong; trying again gives the same."""
    STOPPED = 83
    """Stopped on request; the checkpoint is complete."""
    PREEMPTED = 84
    """The machine was taken away; the checkpoint is complete."""
    DISCARDED = 85
    """Stopped or preempted without a checkpoint."""
    OUT_OF_MEMORY = 137
