"""metrics.jsonl, the truth about a run's numbers, and the callback that fills it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from espalier_trainer.collective import summed
from espalier_trainer.errors import LossError
from espalier_trainer.process import Place
from espalier_trainer.run_file import RunFile

_NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "mean_token_accuracy": "train/mean_token_accuracy",
    "entropy": "train/entropy",
}


class MetricsFile:
    """Appends one JSON object a line; each line is in the file before the next step begins."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def write(self, *, step: int, values: dict[str, float], **more: Any) -> None:
        """Numbers of a step. Those that JSON lacks are written as the strings NaN, Infinity and -Infinity."""
        line = {"step": step, "time": time.time(), **more, "values": {k: _number(v) for k, v in values.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def finish(self, state: TrainerState, values: dict[str, float]) -> None:
        """The last line of a finished run."""
        self.write(step=state.global_step, values=values, final=True, epoch=state.epoch, total_steps=state.max_steps)


class TokenFile:
    """How many tokens one rank has trained on in this attempt, always up to date: who kills it loses no count."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, tokens: int) -> None:
        """As long as any before it, so that it is written over at one stroke."""
        os.pwrite(self._descriptor, b"%020d" % tokens, 0)


class TokenMeter:
    """Counts tokens, and how fast all ranks trained since the last reading; evaluations and saves are left out."""

    def __init__(self, before: int = 0, file: TokenFile | None = None) -> None:
        self._before = before
        self._file = file
        self._mine = self._mine_at_reading = 0
        self._since = time.monotonic()

    def add(self, tokens: int) -> None:
        """Counts the tokens of a micro-batch."""
        self._mine += tokens
        if self._file is not None:
            self._file.write(self._mine)

    def read(self) -> tuple[int, float]:
        """Tokens of all ranks so far, with those of earlier attempts, and tokens per second since the last reading."""
        now = time.monotonic()
        recent = summed(self._mine - self._mine_at_reading)
        speed = recent / max(now - self._since, 1e-9)
        self._mine_at_reading, self._since = self._mine, now
        return self.total(), speed

    def total(self) -> int:
        """Tokens of all ranks so far, those of earlier attempts included."""
        return self._before + int(summed(self._mine))

    def restart(self) -> None:
        """Starts the clock of the next reading now."""
        self._since = time.monotonic()
        self._mine_at_reading = self._mine

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time of the block out of the next reading."""
        start = time.monotonic()
        yield
        self._since += time.monotonic() - start


class MetricsCallback(TrainerCallback):
    """Writes what the trainer logs, measures the validation rows when it is time, and ends a run whose loss is lost."""

    def __init__(
        self,
        run: RunFile,
        file: MetricsFile | None,
        *,
        meter: TokenMeter,
        place: Place,
        measure: Callable[[], dict[str, float]],
    ) -> None:
        self._file = file
        self._meter = meter
        self._place = place
        self._measure = measure
        self._eval_steps = run.hyperparameters.eval_steps
        self._eval_before = run.eval_before

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Measures the model as it is before the first step."""
        if self._eval_before and state.global_step == 0:
            self._evaluate(state)
        self._meter.restart()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Measures every eval_steps; the last step is left to the final measurement."""
        if self._eval_steps and state.global_step % self._eval_steps == 0 and state.global_step < state.max_steps:
            self._evaluate(state)

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Writes a step's numbers; all ranks come here together."""
        if not logs or "loss" not in logs:
            return
        tokens, speed = self._meter.read()
        values = {_NAMES[name]: float(value) for name, value in logs.items() if name in _NAMES}
        values |= {"train/tokens_per_second": speed, "train/tokens": tokens}
        self._write(state, values)
        if not math.isfinite(logs["loss"]):
            raise LossError(
                f"the loss became {_number(logs['loss'])} at step {state.global_step}; "
                "lower learning_rate, raise warmup_steps, or look for broken rows in the data"
            )
        if self._place.is_first:
            print(  # noqa: T201
                f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f} {speed:.0f} tokens/s", flush=True
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Saving is not training."""
        self._meter.restart()

    def _evaluate(self, state: TrainerState) -> None:
        with self._meter.paused():
            self._write(state, self._measure())

    def _write(self, state: TrainerState, values: dict[str, float]) -> None:
        if self._file and values:
            self._file.write(
                step=state.global_step, values=values, epoch=state.epoch or 0.0, total_steps=state.max_steps
            )


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
