"""Takes telemetry in, from the bus and from the files of an attempt that has ended: the same rows either way."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.orm import Session

from espalier_common.storable import storable
from espalier_training_orchestrator.changes import Wake
from espalier_training_orchestrator.runs import repository as runs
from espalier_training_orchestrator.runs.models import Run, Step
from espalier_training_orchestrator.telemetry import repository
from espalier_training_orchestrator.telemetry.repository import Measured, Printed

MAX_STEP = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one message of an attempt brings."""

    run_id: str
    attempt: int
    points: Sequence[Measured] = ()
    logs: Sequence[Printed] = ()
    total_steps: int = 0


class Intake:
    """Stores batches and brings the run's progress forward."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    def take(self, session: Session, batches: Iterable[Batch]) -> None:
        """Stores all of them; those of runs and attempts that are not known here are dropped."""
        by_run: dict[str, list[Batch]] = {}
        for batch in batches:
            by_run.setdefault(batch.run_id, []).append(batch)
        # In one order everywhere, so that two writers never wait for each other.
        for run_id in sorted(by_run):
            run = runs.lock_run(session, run_id)
            if run is not None:
                self._store(session, run, by_run[run_id])

    def _store(self, session: Session, run: Run, batches: list[Batch]) -> None:
        for batch in batches:
            if not 1 <= batch.attempt <= run.attempt:
                continue
            repository.add_points(session, run.id, batch.attempt, batch.points)
            for piece in batch.logs:
                repository.add_log(session, run.id, batch.attempt, piece)
            if batch.attempt == run.attempt and run.state.occupies:
                _advance(run, batch)
        self._wake(session, run.id)


def _advance(run: Run, batch: Batch) -> None:
    for point in batch.points:
        if point.step >= run.step:
            loss = point.values.get("train/loss")
            run.advance(
                Step(
                    step=point.step,
                    total_steps=batch.total_steps,
                    epoch=point.epoch,
                    loss=None if loss is None else float(loss),
                    tokens_per_second=float(point.values.get("train/tokens_per_second", 0.0)),
                    eta_seconds=run.eta_seconds,
                )
            )


def read_metrics(path: Path) -> Iterator[Measured]:
    """The whole lines of a metrics.jsonl; a torn or foreign line is left out, a missing file has none."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (point := _parse(line)) is not None:
                    yield point
    except FileNotFoundError:
        return


def wire_number(value: float) -> float | str:
    """A number as JSON can hold it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _parse(line: bytes) -> Measured | None:
    try:
        content = json.loads(line)
        values = {storable(str(name)): wire_number(float(value)) for name, value in content["values"].items()}
        step, seconds = int(content["step"]), float(content["time"])
        epoch = float(content.get("epoch") or 0.0)
        if not 0 <= step <= MAX_STEP or not math.isfinite(epoch):
            return None
        return Measured(step=step, epoch=epoch, at=datetime.fromtimestamp(seconds, UTC), values=values)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return None
