"""What the runner of an attempt says: that it is there, how far it is; and what it hears."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from espalier_common.db import utc_now
from espalier_training_orchestrator.errors import AttemptSuperseded, AttemptTokenRefused
from espalier_training_orchestrator.runs import repository, tokens
from espalier_training_orchestrator.runs.ledger import CheckpointLedger
from espalier_training_orchestrator.runs.lifecycle import Lifecycle
from espalier_training_orchestrator.runs.models import Attempt, Run, RunState, Step, StopMode

TRAINING = "Training."


class Command(StrEnum):
    """What is asked of a running attempt."""

    CONTINUE = "CONTINUE"
    SAVE_AND_EXIT = "SAVE_AND_EXIT"
    DISCARD_AND_EXIT = "DISCARD_AND_EXIT"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Which attempt calls, and what proves it."""

    run_id: str
    number: int
    token: str


class Attempts:
    """The use cases of runners. An attempt is known by its token alone, and only the newest may go on."""

    def __init__(self, *, lifecycle: Lifecycle, ledger: CheckpointLedger) -> None:
        self._lifecycle = lifecycle
        self._ledger = ledger

    def register(self, session: Session, claim: Claim, *, host: str, pid: int) -> int:
        """Makes the attempt known and gives its fence; earlier fences of the run are stale from now on.

        Raises AttemptTokenRefused, and AttemptSuperseded when the attempt has ended or a newer one took its place.
        """
        run, attempt = self._authenticate(session, claim)
        if attempt.number != run.attempt or attempt.ended_at is not None:
            raise AttemptSuperseded("This attempt is over; end without touching anything.")
        run.fence += 1
        attempt.fence = run.fence
        attempt.host, attempt.pid, attempt.heartbeat_at = host, pid, utc_now()
        if run.state is RunState.STARTING:
            self._begin(session, run, attempt)
        return attempt.fence

    def heartbeat(
        self, session: Session, claim: Claim, *, fence: int, step: Step | None, has_new_checkpoints: bool
    ) -> Command:
        """Notes that the attempt lives and how far it is; gives what is asked of it. Raises AttemptTokenRefused."""
        run, attempt = self._authenticate(session, claim)
        if attempt.number != run.attempt or attempt.ended_at is not None or attempt.fence != fence:
            return Command.DISCARD_AND_EXIT
        attempt.heartbeat_at = utc_now()
        if run.state is RunState.STARTING:
            self._begin(session, run, attempt)
        if step is not None and step.step >= run.step:
            run.advance(step)
            attempt.last_step = max(attempt.last_step, step.step)
        if has_new_checkpoints:
            self._ledger.sync(session, run, self._ledger.whole_on_disk(run, trusted=frozenset(), hashes=False))
        if run.state is RunState.RUNNING:
            self._lifecycle.say(session, run, TRAINING)
        self._lifecycle.wake(session, run.id)
        return _wanted(run)

    def _begin(self, session: Session, run: Run, attempt: Attempt) -> None:
        attempt.state = RunState.RUNNING
        self._lifecycle.move(session, run, RunState.RUNNING, reason="TRAINING", message=TRAINING)

    def _authenticate(self, session: Session, claim: Claim) -> tuple[Run, Attempt]:
        run = repository.lock_run(session, claim.run_id)
        attempt = repository.find_attempt(session, claim.run_id, claim.number) if run else None
        if run is None or attempt is None or not tokens.matches(claim.token, attempt.token_hash):
            raise AttemptTokenRefused("This token belongs to no attempt of this run.")
        return run, attempt


def _wanted(run: Run) -> Command:
    if run.state is not RunState.STOPPING:
        return Command.CONTINUE
    return Command.SAVE_AND_EXIT if run.stop_mode is StopMode.SAVE and not run.stop_forced else Command.DISCARD_AND_EXIT
