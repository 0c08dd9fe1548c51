"""Lets runs out of the queue, first come, first served for each device; says to the others what they wait for."""

import secrets
from collections import Counter
from collections.abc import Mapping

from sqlalchemy.orm import Session

from espalier_common.db import Database
from espalier_training_orchestrator import planner
from espalier_training_orchestrator.runs import repository, tokens
from espalier_training_orchestrator.runs.checkpoints import Manifest
from espalier_training_orchestrator.runs.launching import Launching
from espalier_training_orchestrator.runs.ledger import CheckpointLedger
from espalier_training_orchestrator.runs.lifecycle import Lifecycle
from espalier_training_orchestrator.runs.models import Attempt, Run, RunState
from espalier_training_orchestrator.runs.refusals import problems
from espalier_training_orchestrator.runs.survey import Survey


class Admission:
    """One round of it at a time: the reconciler's."""

    def __init__(
        self,
        database: Database,
        *,
        survey: Survey,
        lifecycle: Lifecycle,
        launching: Launching,
        ledger: CheckpointLedger,
    ) -> None:
        self._database = database
        self._survey = survey
        self._lifecycle = lifecycle
        self._launching = launching
        self._ledger = ledger

    def admit(self) -> int:
        """Starts what fits; gives how many runs waited.

        Nobody overtakes on the same device, so that a large run is not starved by small ones.
        """
        with self._database.transaction() as session:
            queued = list(repository.queued_run_ids(session))
            occupied = Counter(repository.occupied_ranks(session))
        if not queued:
            return 0
        platform = self._survey.platform
        capacity = {"cpu": platform.ranks, "cuda": platform.gpus}
        ahead: Counter[str] = Counter()
        for run_id in queued:
            device, ranks = self._admit_one(run_id, capacity=capacity, occupied=occupied, ahead=ahead)
            if ranks:
                occupied[device] += ranks
            else:
                ahead[device] += 1
        return len(queued)

    def _admit_one(
        self, run_id: str, *, capacity: Mapping[str, int], occupied: Counter[str], ahead: Counter[str]
    ) -> tuple[str, int]:
        """Device and ranks that the run has taken; no ranks when it goes on waiting."""
        with self._database.transaction() as session:
            run = repository.find_run_by_id(session, run_id)
            known = list(repository.list_checkpoints(session, run_id))
        if run is None or run.state is not RunState.QUEUED:
            return "", 1
        device = run.device
        fits = occupied[device] + run.world_size <= capacity[device] and not ahead[device]
        # Outside of any transaction: every byte of the checkpoint is read.
        checkpoint = self._ledger.newest_whole(known) if fits and run.attempt else None
        with self._database.transaction() as session:
            run = repository.lock_run(session, run_id)
            if run is None or run.state is not RunState.QUEUED:
                return device, 1
            if not fits and run.world_size <= capacity[device]:
                self._lifecycle.say(session, run, _waiting(run, ahead[device]))
                return device, 0
            return device, self._start(session, run, checkpoint)

    def _start(self, session: Session, run: Run, checkpoint: Manifest | None) -> int:
        """Writes down the next attempt; a run that cannot run any more fails with all reasons."""
        if found := problems(run.spec, self._survey.facts(session, run.spec, None)):
            sentences = " ".join(f"{problem.field} {problem.description}." for problem in found)
            self._fail(
                session, run, reason=found[0].reason, message=f"The run cannot be launched any more. {sentences}"
            )
            return 0
        if run.attempt and checkpoint is None:
            message = "None of the run's checkpoints is whole any more, so there is nothing to go on from."
            self._fail(session, run, reason="CHECKPOINT_DAMAGED", message=message)
            return 0
        self._begin(session, run, checkpoint)
        return run.world_size

    def _begin(self, session: Session, run: Run, checkpoint: Manifest | None) -> None:
        number = run.attempt + 1
        nonce = secrets.token_urlsafe(16)
        token = self._launching.token(run_id=run.id, number=number, nonce=nonce)
        attempt = Attempt(
            run_id=run.id,
            number=number,
            name=planner.attempt_name(run.id, number),
            directory=str(self._survey.places.attempt_dir(run.id, number)),
            nonce=nonce,
            token_hash=tokens.token_hash(token),
            resumed_from=str(checkpoint.directory) if checkpoint else "",
            resumed_from_step=checkpoint.step if checkpoint else 0,
            tokens_before=checkpoint.tokens if checkpoint else 0,
            last_step=checkpoint.step if checkpoint else 0,
        )
        session.add(attempt)
        run.attempt = number
        # The curve goes on from the checkpoint; steps after it are trained again.
        run.step = attempt.resumed_from_step
        message = f"Launching attempt {number}" + (f" from step {checkpoint.step}." if checkpoint else ".")
        self._lifecycle.move(session, run, RunState.STARTING, reason="LAUNCHING", message=message)

    def _fail(self, session: Session, run: Run, *, reason: str, message: str) -> None:
        self._lifecycle.move(session, run, RunState.FAILED, reason=reason, message=message)
        run.resumable = repository.has_checkpoint(session, run.id)


def _waiting(run: Run, ahead: int) -> str:
    unit = "GPU" if run.device == "cuda" else "rank"
    wanted = f"{run.world_size} {unit}" + ("" if run.world_size == 1 else "s")
    others = "no run ahead" if not ahead else f"{ahead} run{'' if ahead == 1 else 's'} ahead"
    return f"Waiting for {wanted}, {others}."
