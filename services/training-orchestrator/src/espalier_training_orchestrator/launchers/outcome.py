"""What an end means: the one table from the runner's exit codes to phase, reason and sentence, for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espalier_training_orchestrator.spec import Observation, Phase


@dataclass(frozen=True)
class Outcome:
    """How a launch has ended, when the runner itself says nothing better."""

    phase: Phase
    reason: str
    message: str


# Exit code of the runner → what it means. The codes are the contract between runner and platform.
_BY_EXIT_CODE: Mapping[int, Outcome] = {
    0: Outcome(Phase.SUCCEEDED, "COMPLETED", "The training is complete."),
    # Worth another attempt: nothing is wrong with the run itself.
    75: Outcome(Phase.FAILED, "INFRASTRUCTURE", "The machine could not carry the training on; see the log."),
    # Another attempt would fail in the same way.
    78: Outcome(Phase.FAILED, "INVALID_CONFIGURATION", "The training cannot run with this configuration; see the log."),
    # Ends that were asked for.
    83: Outcome(Phase.STOPPED, "STOPPED_BY_USER", "The training was stopped; its checkpoint is complete."),
    84: Outcome(Phase.STOPPED, "PREEMPTED", "The training had to make room; its checkpoint is complete."),
    85: Outcome(
        Phase.STOPPED,
        "STOPPED_WITHOUT_CHECKPOINT",
        "The training was stopped; what came after its last checkpoint is lost.",
    ),
    # 128 + SIGKILL: the kernel's out-of-memory killer, or a hand.
    137: Outcome(
        Phase.FAILED,
        "OUT_OF_MEMORY_OR_KILLED",
        "A process of the training was killed, most likely because memory ran out; lower the batch size or cutoff_len.",
    ),
}
_CRASHED = Outcome(Phase.FAILED, "CRASHED", "The training crashed; see the log.")

KILLED_ON_REQUEST = _BY_EXIT_CODE[85]
"""An attempt that was killed because somebody asked for it at once."""
SERVER_STOPPED = Outcome(Phase.STOPPED, "STOPPED_BY_USER", "The server was stopped.")
PROCESS_DIED = Outcome(
    Phase.FAILED, "PROCESS_DIED", "The process died without a word; somebody or something killed it."
)


def outcome_of(exit_code: int) -> Outcome:
    """The meaning of a runner's exit code; every code that is not in the contract is a crash."""
    return _BY_EXIT_CODE.get(exit_code, _CRASHED)


def ended_in_order(result: Mapping[str, Any]) -> Observation:
    """The observation of an attempt that left this `result.json`."""
    exit_code = result.get("exit_code")
    if not isinstance(exit_code, int):
        return Observation(
            phase=Phase.FAILED,
            reason="RESULT_UNREADABLE",
            message="The result.json of the attempt holds no exit code; see the log.",
            result=result,
        )
    outcome = outcome_of(exit_code)
    tail = result.get("log_tail")
    return Observation(
        phase=outcome.phase,
        exit_code=exit_code,
        reason=outcome.reason,
        message=str(result.get("message") or outcome.message),
        result=result,
        log_tail=tuple(str(line) for line in tail) if isinstance(tail, list) else (),
    )
