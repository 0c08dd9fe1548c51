"""Stopping on request: rank 0 looks for the file `stop` at each step boundary, and all ranks agree on what it says."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from espalier_trainer.collective import agreed
from espalier_trainer.process import Place


class StopRequest(IntEnum):
    """What the file asks for; when ranks differ the larger wins."""

    NONE = 0
    SAVE = 1
    DISCARD = 2


class AllStepsDone(Exception):
    """Leaves the trainer before its first step, with everything loaded."""


class StopCallback(TrainerCallback):
    """Ends the training loop after the step in which all ranks learned of the request."""

    def __init__(self, file: Path, place: Place) -> None:
        self._file = file
        self._place = place
        self.request = StopRequest.NONE

    @property
    def is_save(self) -> bool:
        """The run was asked to stop and to save."""
        return self.request is StopRequest.SAVE

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """A run that crashed after its last step has no step left; the trainer would take one more."""
        if state.global_step >= state.max_steps:
            raise AllStepsDone

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Asks; a run at its last step is finished rather than stopped."""
        if state.global_step >= state.max_steps:
            return
        self.request = StopRequest(agreed(self._read() if self._place.is_first else StopRequest.NONE))
        if self.request is StopRequest.NONE:
            return
        control.should_training_stop = True
        control.should_save = self.is_save

    def _read(self) -> StopRequest:
        try:
            content = self._file.read_text("utf-8").strip()
        except FileNotFoundError:
            return StopRequest.NONE
        return StopRequest.DISCARD if content == "discard" else StopRequest.SAVE
