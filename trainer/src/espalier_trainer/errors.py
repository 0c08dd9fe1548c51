"""Errors of a rank; each is one sentence for people and an exit code.

TrainerError
├── ConfigError          run.yaml, the data or the model cannot be used; exit 78
│   ├── CheckpointError  a checkpoint is damaged, or does not fit the run that wants to resume from it
│   └── LossError        the loss is not a number any more: the settings, not the machine, are at fault
└── Stopped              not a failure: the run was asked to stop; exit 83 or 85
"""

from __future__ import annotations

from pathlib import Path

from espalier_trainer.exit_codes import ExitCode


class TrainerError(Exception):
    """Ends a rank with a sentence and an exit code."""

    exit_code = ExitCode.CRASHED


class ConfigError(TrainerError):
    """run.yaml, the data or the model cannot be used."""

    exit_code = ExitCode.USER_ERROR


class CheckpointError(ConfigError):
    """A checkpoint is damaged, or does not fit the run that wants to resume from it."""


class LossError(ConfigError):
    """The loss is not a number any more."""


class Stopped(TrainerError):
    """The run was asked to stop, and all ranks agreed."""

    def __init__(self, step: int, *, saved: Path | None) -> None:
        super().__init__(f"stopped at step {step}, " + (f"saved {saved}" if saved else "nothing saved"))
        self.exit_code = ExitCode.STOPPED if saved else ExitCode.DISCARDED
