"""The demo's two runs: the first to its end, the second with a stop in its middle."""

from collections.abc import Iterator
from typing import Any

from espalier_client.api import Api
from espalier_client.commands.runs import RUNS, create_run, resume_run, stop_run
from espalier_client.errors import ClientError
from espalier_client.output import note
from espalier_client.progress import follow, run_view

# Where in the run it is stopped, as a part of all its steps.
MIDDLE = 0.5


def train(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    """Starts a run and shows it to its end. Raises ClientError with its cause when it does not succeed."""
    made = create_run(api, run)
    with run_view(made["name"]) as view:
        return _succeeded(follow(_answers(api, made), view))


def train_with_a_stop(api: Api, run: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """As `train`, but stops in the middle with "save" and resumes. Gives the run and the two steps."""
    made = create_run(api, run)
    with run_view(made["name"]) as view:
        stopped = follow(_stopping(api, _answers(api, made)), view)
    if stopped["state"] != "RUN_STATE_STOPPED":
        raise ClientError(f"The run {stopped['name']} ended before it could be stopped: {_told(stopped)}")
    note(f"stopped with a checkpoint at step {stopped['progress']['step']}; resuming")
    resume_run(api, made["id"])
    with run_view(f"{made['name']} (resumed)") as view:
        ended = _succeeded(follow(_answers(api, made), view))
    first, second = api.get(f"{RUNS}/{made['id']}/attempts")["attempts"][:2]
    return ended, {"stopped_at_step": first["last_step"], "resumed_from_step": second["resumed_from_step"]}


def points_of(api: Api, run: dict[str, Any]) -> list[dict[str, Any]]:
    """All metric points of a run, by step."""
    return list(api.all(f"{RUNS}/{run['id']}/metrics", "points"))


def _answers(api: Api, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return api.events(f"{RUNS}/{run['id']}:watch")


def _stopping(api: Api, answers: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same answers; asks the run to stop once it is in its middle."""
    asked = False
    for answer in answers:
        run = answer["run"]
        at = run.get("progress") or {}
        middle = at.get("total_steps") and at["step"] >= MIDDLE * at["total_steps"]
        if middle and not asked and run["state"] == "RUN_STATE_RUNNING":
            asked = True
            stop_run(api, run["id"])
        yield answer


def _succeeded(run: dict[str, Any]) -> dict[str, Any]:
    if run["state"] != "RUN_STATE_SUCCEEDED":
        raise ClientError(f"The run {run['name']} did not succeed: {_told(run)}", reason=run["reason"])
    return run


def _told(run: dict[str, Any]) -> str:
    return str(run["message"] or run["state"])
