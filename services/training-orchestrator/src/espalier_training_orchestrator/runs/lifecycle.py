"""Moves runs: the row, its line in the timeline, the domain event and the wake-up of watchers belong together."""

from datetime import datetime

from sqlalchemy.orm import Session

from espalier_common.db import utc_now
from espalier_training_orchestrator.changes import Publish, Wake
from espalier_training_orchestrator.runs import repository
from espalier_training_orchestrator.runs.models import Attempt, Run, RunEvent, RunMoved, RunState, RunUsed

RECONCILER = "reconciler"
"""Topic under which the reconciler is woken: what was asked for need not wait for its next round."""


class Lifecycle:
    """Used by the use cases, by the runners' calls and by the reconciler alike."""

    def __init__(self, *, publish: Publish, wake: Wake) -> None:
        self._publish = publish
        self.wake = wake
        """Wakes those who watch a run after the commit, without an event."""

    def created(self, session: Session, run: Run, *, actor_id: str) -> None:
        """Tells that a run was queued for the first time."""
        self._publish(
            session,
            RunMoved(
                run_id=run.id,
                owner_id=run.owner_id,
                before=None,
                after=run.state,
                reason=run.reason,
                at=run.created_at,
            ),
        )
        self.wake(session, RECONCILER)
        self.note(session, run, reason=run.reason, message="Created and queued.", actor_id=actor_id)

    def move(self, session: Session, run: Run, to: RunState, *, reason: str, message: str, actor_id: str = "") -> None:
        """Takes the run into another state. Raises IllegalTransition."""
        was_launched = run.state.occupies
        moved = run.move(to, reason=reason, message=message)
        self._publish(session, moved)
        if to.is_terminal:
            attempt = repository.find_attempt(session, run.id, run.attempt) if was_launched else None
            self._publish(session, _used(run, attempt, attempt.ended_at if attempt else None))
        self.wake(session, RECONCILER)
        self.note(session, run, reason=reason, message=message, actor_id=actor_id)

    def use(self, session: Session, run: Run, attempt: Attempt, until: datetime) -> None:
        """Tells what an attempt that goes on has used until then."""
        self._publish(session, _used(run, attempt, until))

    def note(self, session: Session, run: Run, *, reason: str, message: str, actor_id: str = "") -> None:
        """Writes into the timeline that something happened."""
        session.add(RunEvent(run_id=run.id, attempt=run.attempt, reason=reason, message=message, actor_id=actor_id))
        self.wake(session, run.id)

    def say(self, session: Session, run: Run, message: str) -> None:
        """Tells people something about the present state, without an event; nothing happens when it says so already."""
        if run.message != message:
            run.message = message
            self.wake(session, run.id)


def _used(run: Run, attempt: Attempt | None, until: datetime | None) -> RunUsed:
    """From the launch to the end each rank occupies its place, whatever it does there."""
    wait = (attempt.created_at - run.queued_at).total_seconds() if attempt else 0.0
    return RunUsed(
        run_id=run.id,
        owner_id=run.owner_id,
        reservation_id=run.reservation_id,
        attempt_id=attempt.id if attempt else "",
        device=run.device,
        ranks=run.world_size,
        pieces=attempt.use(until) if attempt and until else (),
        goes_on=not run.state.is_terminal,
        queue_wait=max(0.0, wait),
        tokens=attempt.train() if attempt else 0,
        model=run.model,
        succeeded=run.state is not RunState.FAILED,
        at=until or utc_now(),
    )
