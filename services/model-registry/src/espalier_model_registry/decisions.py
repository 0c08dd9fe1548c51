"""What follows from what was found out about a deployment's server: pure, no call, no clock, no database.

state      found                           follows
──────────────────────────────────────────────────────────────────────────────────
PENDING    launched, or adopted            → STARTING | READY
STARTING   starts                          keeps its sentence
           answers                         → READY
READY      answers                         stays
both       failed by its own fault         → FAILED
           gone, or its process killed     → PENDING, 3 times in 10 minutes; then FAILED
STOPPING   removed                         → STOPPED
FAILED     removed                         looked at no more
wanted     the orchestrator refuses        → FAILED
any        the orchestrator is away        stays; looked at again with growing pauses
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from espalier_common.errors import (
    AlreadyExists,
    DeadlineExceeded,
    EspalierError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from espalier_model_registry.models import RELAUNCH_LIMIT, Deployment, DeploymentChanged, DeploymentState
from espalier_model_registry.servers import PROCESS_DIED, SERVER_GONE, Server, ServerState

MAX_BACKOFF_SECONDS = 30.0
REMOVAL_SECONDS = 1.0  # pause between two looks at a server that is being removed
REFUSALS = (InvalidArgument, FailedPrecondition, AlreadyExists, NotFound)


@dataclass(frozen=True)
class Seen:
    """The server as it is; None when the orchestrator knows none."""

    server: Server | None


@dataclass(frozen=True)
class Removal:
    """The server was asked to end; `complete` once nothing of it is left."""

    complete: bool


@dataclass(frozen=True)
class Trouble:
    """The orchestrator answered with an error, or not at all."""

    error: EspalierError


Finding = Seen | Removal | Trouble


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """When and by whom it was found: `process` tells a server launched by this process from one of before."""

    now: datetime
    process: str
    starting_seconds: float
    ready_seconds: float


def conclude(deployment: Deployment, finding: Finding, at: Circumstances) -> DeploymentChanged | None:
    """Moves the deployment, sets the time of the next look, and gives the event of a changed state."""
    if isinstance(finding, Trouble):
        return _trouble(deployment, finding.error, at)
    deployment.failures = 0
    if isinstance(finding, Removal):
        return _removal(deployment, finding, at)
    server = finding.server
    if deployment.state is DeploymentState.PENDING:
        deployment.launched_by = at.process
    if server is None or server.state is ServerState.FAILED:
        return _lost(deployment, server, at)
    if server.state is ServerState.STARTING:
        # A ready server whose health check fails for a moment is told as starting too.
        _look_in(deployment, at.starting_seconds, at)
        message = server.message or "The model server loads the model."
        return deployment.move_to(DeploymentState.STARTING, reason=server.reason or "LOADING", message=message)
    _look_in(deployment, at.ready_seconds, at)
    event = deployment.move_to(DeploymentState.READY, reason=server.reason or "READY", message="Answers.")
    deployment.base_url = server.base_url
    return event


def _lost(deployment: Deployment, server: Server | None, at: Circumstances) -> DeploymentChanged | None:
    reason = (server.reason if server else SERVER_GONE) or "SERVER_FAILED"
    message = (server.message if server else "") or "Its model server is gone."
    if not _was_killed(deployment, reason, at):
        return _fail(deployment, reason, message, at)
    if not deployment.may_relaunch(at.now):
        again = f"It was launched again {RELAUNCH_LIMIT} times within 10 minutes and was lost each time: {message}"
        return _fail(deployment, reason, again, at)
    _look_in(deployment, 0, at)
    return deployment.move_to(DeploymentState.PENDING, reason=reason, message=f"Is launched again: {message}")


def _was_killed(deployment: Deployment, reason: str, at: Circumstances) -> bool:
    """True when launching again makes sense: the server did not end by its own fault.

    One that dies while it loads, under the eyes of the process that launched it, would only die again.
    """
    if reason == SERVER_GONE:
        return True
    loaded_before = deployment.state is DeploymentState.READY or deployment.launched_by != at.process
    return reason == PROCESS_DIED and loaded_before


def _fail(deployment: Deployment, reason: str, message: str, at: Circumstances) -> DeploymentChanged | None:
    _look_in(deployment, 0, at)  # what is left of the server is removed
    return deployment.move_to(DeploymentState.FAILED, reason=reason, message=message)


def _removal(deployment: Deployment, finding: Removal, at: Circumstances) -> DeploymentChanged | None:
    if not finding.complete or deployment.state.wants_server:
        _look_in(deployment, 0 if finding.complete else REMOVAL_SECONDS, at)
        return None
    deployment.check_at = None
    if deployment.state is not DeploymentState.STOPPING:
        return None
    return deployment.move_to(DeploymentState.STOPPED, reason=deployment.reason, message="Undeployed.")


def _trouble(deployment: Deployment, error: EspalierError, at: Circumstances) -> DeploymentChanged | None:
    if deployment.state.wants_server and isinstance(error, REFUSALS):
        return _fail(deployment, error.reason, error.message, at)
    pause = min(0.5 * 2 ** min(deployment.failures, 10), MAX_BACKOFF_SECONDS)
    deployment.failures += 1
    _look_in(deployment, pause * random.uniform(0.8, 1.2), at)  # noqa: S311
    if deployment.state in {DeploymentState.READY, DeploymentState.FAILED}:
        # A server answers whether the orchestrator does or not; and why one failed stays to be read.
        return None
    told = _AWAY if isinstance(error, Unavailable | DeadlineExceeded | Internal) else error.message
    return deployment.move_to(deployment.state, reason=error.reason, message=f"{_WAITING[deployment.state]} {told}")


_AWAY = "The training orchestrator does not answer at the moment; it is asked again and again."
_WAITING: Mapping[DeploymentState, str] = {
    DeploymentState.PENDING: "Waits to be launched.",
    DeploymentState.STARTING: "The model server was launched.",
    DeploymentState.STOPPING: "Its model server is to be stopped.",
}


def _look_in(deployment: Deployment, seconds: float, at: Circumstances) -> None:
    deployment.check_at = at.now + timedelta(seconds=seconds)
