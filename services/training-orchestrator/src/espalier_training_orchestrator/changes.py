"""What the use cases tell the outside and ask it, as ports: filled with the outbox, `announce` and auth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from espalier_training_orchestrator.runs.models import RunMoved, RunUsed
from espalier_training_orchestrator.workloads.models import WorkloadMoved, WorkloadUsed


@dataclass(frozen=True, kw_only=True)
class StorageChanged:
    """How many bytes somebody keeps now; `reservation_id` was held for what came, and is empty when nothing was."""

    owner_id: str
    stored_bytes: int
    by_model: Mapping[str, int]
    """Of them, what checkpoints and finished models of each model take; the rest is data."""
    at: datetime
    reservation_id: str = ""


Change = RunMoved | RunUsed | WorkloadMoved | WorkloadUsed | StorageChanged

Publish = Callable[[Session, Change], None]
"""Stores a domain event with the running transaction."""

Wake = Callable[[Session, str], None]
"""Wakes those who watch this run, once the running transaction is committed."""


class Limits(Protocol):
    """What is asked of auth, in the service's own name."""

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        """Holds amounts of somebody's limits. Raises ResourceExhausted, and Unavailable when nobody can tell."""
