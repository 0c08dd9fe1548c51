"""Live progress of a training run: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from espalier_client.output import duration, is_live, note, number, stderr, word

LINE_SECONDS = 5.0
ENDED = frozenset({"RUN_STATE_STOPPED", "RUN_STATE_SUCCEEDED", "RUN_STATE_FAILED", "RUN_STATE_CANCELLED"})


class RunView(Protocol):
    """Shows a run as it is now."""

    def show(self, run: dict[str, Any]) -> None:
        """Takes the run's newest state."""


@contextmanager
def run_view(name: str) -> Iterator[RunView]:
    """A bar where a person looks at a terminal, else lines."""
    if not is_live():
        yield RunLines(name)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )
    with Progress(*columns, console=stderr()) as progress:
        yield RunBar(progress, progress.add_task(name, total=None, told=""))


class RunBar:
    """One bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, run: dict[str, Any]) -> None:
        """Step of all steps, and beside it loss, speed and the time left."""
        at = run.get("progress") or {}
        told = told_of(run)
        self._progress.update(self._task, total=at.get("total_steps") or None, completed=at.get("step", 0), told=told)


class RunLines:
    """A line at each change of state, and every few seconds while it trains."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = ""
        self._next = 0.0

    def show(self, run: dict[str, Any]) -> None:
        """Prints the run unless nothing of note has happened since the last line."""
        if run["state"] == self._state and time.monotonic() < self._next:
            return
        self._state = run["state"]
        self._next = time.monotonic() + LINE_SECONDS
        at = run.get("progress") or {}
        steps = f"step {at.get('step', 0)}/{at.get('total_steps') or '?'}"
        note(f"{self._name}: {steps}  {told_of(run)}")


def told_of(run: dict[str, Any]) -> str:
    """Loss, speed and time left of a run that trains; else its state and why."""
    at = run.get("progress") or {}
    if run["state"] != "RUN_STATE_RUNNING":
        return f"{word(run['state'], 'RUN_STATE_')}{_because(run)}"
    parts = [f"loss {number(at['loss'])}" if at.get("step") else "preparing"]
    if at.get("tokens_per_second"):
        parts.append(f"{at['tokens_per_second']:,.0f} tokens/s")
    if at.get("eta"):
        parts.append(f"ETA {duration(float(at['eta'].rstrip('s')))}")
    return "  ".join(parts)


def _because(run: dict[str, Any]) -> str:
    return f": {run['message']}" if run.get("message") else ""


def follow(answers: Iterable[dict[str, Any]], view: RunView) -> dict[str, Any]:
    """Shows a stream of WatchRun to its end. Gives the run as it was last."""
    run: dict[str, Any] = {}
    for answer in answers:
        run = answer["run"]
        view.show(run)
        if run["state"] in ENDED:
            break
    return run
