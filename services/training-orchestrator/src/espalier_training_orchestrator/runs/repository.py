"""Every select on runs, attempts, checkpoints and the timeline."""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session

from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import Reach, reach_of, visible
from espalier_training_orchestrator.runs.models import Attempt, Checkpoint, Run, RunEvent, RunState

OCCUPYING = tuple(state for state in RunState if state.occupies)


def find_run(session: Session, run_id: str, principal: Principal, *, lock: bool = False) -> Run | None:
    """One run, if the caller may see it."""
    query = _one_run(reach_of(principal))
    return session.scalar(query.with_for_update() if lock else query, {"run_id": run_id})


@lru_cache(maxsize=256)
def _one_run(reach: Reach) -> Select[Run]:
    # The read that everybody waits for: to build the select each time takes longer than the database does.
    return select(Run).where(Run.id == bindparam("run_id"), visible(Run.owner_id, reach))


def find_run_by_id(session: Session, run_id: str) -> Run | None:
    """One run, whoever owns it."""
    return session.get(Run, run_id)


def lock_run(session: Session, run_id: str) -> Run | None:
    """One run, whoever owns it, kept from others until the end of the transaction."""
    return session.scalar(select(Run).where(Run.id == run_id).with_for_update())


def find_run_of_request(session: Session, owner_id: str, request_id: str) -> Run | None:
    """The run that an earlier, equal request made."""
    return session.scalar(select(Run).where(Run.owner_id == owner_id, Run.request_id == request_id))


def list_runs(session: Session, principal: Principal, *, state: RunState | None, page: PageRequest) -> Page[Run]:
    """The runs that the caller may see, newest first."""
    query = select(Run).where(visible(Run.owner_id, principal))
    if state is not None:
        query = query.where(Run.state == state)
    return paginate(session, query, order=(Run.created_at.desc(), Run.id.desc()), page=page)


def active_run_ids(session: Session) -> Sequence[str]:
    """Runs that hold resources, oldest first."""
    return session.scalars(select(Run.id).where(Run.state.in_(OCCUPYING)).order_by(Run.queued_at)).all()


def queued_run_ids(session: Session) -> Sequence[str]:
    """Runs that wait, in the order in which they are admitted."""
    query = select(Run.id).where(Run.state == RunState.QUEUED).order_by(Run.queued_at, Run.id)
    return session.scalars(query).all()


def occupied_ranks(session: Session) -> dict[str, int]:
    """Ranks that hold resources now, by device."""
    query = select(Run.device, func.sum(Run.world_size)).where(Run.state.in_(OCCUPYING)).group_by(Run.device)
    return {device: int(ranks) for device, ranks in session.execute(query)}


def live_runs(session: Session) -> Sequence[Run]:
    """Runs that wait or hold resources."""
    return session.scalars(select(Run).where(Run.state.in_((RunState.QUEUED, *OCCUPYING)))).all()


def stored_bytes(session: Session, owner_id: str) -> dict[str, int]:
    """Bytes of the checkpoints and finished models of somebody's runs, by model; none of 0."""
    checkpoints = select(Run.model, Checkpoint.size_bytes.label("size")).join(Run, Run.id == Checkpoint.run_id)
    finished = select(Run.model, Run.model_bytes).where(Run.owner_id == owner_id, Run.model_bytes > 0)
    kept = checkpoints.where(Run.owner_id == owner_id).union_all(finished).subquery()
    rows = session.execute(select(kept.c.model, func.sum(kept.c.size)).group_by(kept.c.model).order_by(kept.c.model))
    return {model: int(size) for model, size in rows if size}


def owners_of_bytes(session: Session) -> set[str]:
    """Whose runs keep checkpoints or finished models, or did."""
    return set(session.scalars(select(Run.owner_id).where(Run.attempt > 0).distinct()))


def find_attempt(session: Session, run_id: str, number: int) -> Attempt | None:
    """One attempt of a run."""
    return session.scalar(select(Attempt).where(Attempt.run_id == run_id, Attempt.number == number))


def list_attempts(session: Session, run_id: str) -> Sequence[Attempt]:
    """The attempts of a run, oldest first."""
    return session.scalars(select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.number)).all()


def unreleased_attempts(session: Session) -> Sequence[Attempt]:
    """Attempts that have ended and that the launcher may still hold something of."""
    return session.scalars(select(Attempt).where(Attempt.ended_at.is_not(None), Attempt.released.is_(False))).all()


def find_attempt_by_id(session: Session, attempt_id: str) -> Attempt | None:
    """One attempt."""
    return session.get(Attempt, attempt_id)


def list_checkpoints(session: Session, run_id: str) -> Sequence[Checkpoint]:
    """The checkpoints of a run, newest first."""
    return session.scalars(select(Checkpoint).where(Checkpoint.run_id == run_id).order_by(Checkpoint.step.desc())).all()


def has_checkpoint(session: Session, run_id: str) -> bool:
    """True when there is something to go on from."""
    return session.scalar(select(Checkpoint.id).where(Checkpoint.run_id == run_id).limit(1)) is not None


def list_events(session: Session, run_id: str) -> Sequence[RunEvent]:
    """What happened to a run, oldest first."""
    return session.scalars(select(RunEvent).where(RunEvent.run_id == run_id).order_by(RunEvent.id)).all()
