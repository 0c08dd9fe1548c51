"""Every select on workloads."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from espalier_training_orchestrator.workloads.models import Workload


def find_wanted(session: Session, name: str, *, lock: bool = False) -> Workload | None:
    """The workload of that name, unless it is to end."""
    query = select(Workload).where(Workload.name == name, Workload.wanted)
    return session.scalar(query.with_for_update() if lock else query)


def lock_workload(session: Session, workload_id: str) -> Workload | None:
    """One launch of a workload, kept from others until the end of the transaction."""
    return session.scalar(select(Workload).where(Workload.id == workload_id).with_for_update())


def list_workloads(session: Session) -> Sequence[Workload]:
    """All launches that are not over and forgotten, oldest first."""
    return session.scalars(select(Workload).order_by(Workload.created_at, Workload.id)).all()
