"""What the end of an attempt means for its run. Pure: one table, read from top to bottom."""

from dataclasses import dataclass

from espalier_training_orchestrator.runs.models import Attempt, Run, RunState, StopMode
from espalier_training_orchestrator.spec import Observation, Phase


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state that attempt and run go into, with the reason and the sentence."""

    state: RunState
    reason: str
    message: str


def verdict(run: Run, attempt: Attempt, seen: Observation, *, has_model: bool) -> Verdict:
    """Why it ended, as far as the launcher saw it and we asked for it."""
    last = f" The last step was {attempt.last_step}." if attempt.last_step else ""
    # What we killed because its save took too long is no stop that went well.
    if run.stop_forced and seen.phase is not Phase.SUCCEEDED:
        message = "Saving took longer than allowed, so the training was ended by force; earlier checkpoints are kept."
        return Verdict(state=RunState.FAILED, reason="STOP_TIMEOUT", message=message + last)
    if seen.phase is Phase.SUCCEEDED and has_model:
        return Verdict(
            state=RunState.SUCCEEDED, reason="COMPLETED", message=seen.message or "The training is complete."
        )
    if seen.phase is Phase.SUCCEEDED:
        message = "The training says it is complete, but its model is not in the artifact store."
        return Verdict(state=RunState.FAILED, reason="MODEL_MISSING", message=message)
    if seen.phase is Phase.STOPPED:
        reason = seen.reason or "STOPPED_BY_USER"
        return Verdict(state=RunState.STOPPED, reason=reason, message=(seen.message or "Stopped.") + last)
    # Asked to end at once, it may end in any way: that is what was asked for.
    if run.state is RunState.STOPPING and run.stop_mode is StopMode.NOW:
        message = "Stopped at once; what came after the last checkpoint is lost." + last
        return Verdict(state=RunState.STOPPED, reason="STOPPED_WITHOUT_CHECKPOINT", message=message)
    return Verdict(
        state=RunState.FAILED, reason=seen.reason or "CRASHED", message=(seen.message or "It failed.") + last
    )


def never_launched(run: Run) -> Verdict:
    """The stop came before the launch: a run that never trained is cancelled, another is back where it was."""
    if run.attempt > 1:
        return Verdict(state=RunState.STOPPED, reason="STOPPED_BY_USER", message="Stopped before it trained again.")
    return Verdict(state=RunState.CANCELLED, reason="CANCELLED_BY_USER", message="Cancelled before it trained.")
