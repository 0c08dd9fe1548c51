"""Workloads: servers that run until they are deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from espalier_common.db import Id, new_id, utc_now
from espalier_training_orchestrator.entity import Base
from espalier_training_orchestrator.occupancy import Piece, pieces

PLACES = 1  # a model server has one GPU, or computes in one process


class WorkloadState(StrEnum):
    """Where a workload stands."""

    STARTING = "STARTING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class WorkloadMoved:
    """A workload went into another state; the fields are those of the workload after it."""

    name: str
    owner_id: str
    model_uri: str
    served_model_name: str
    device: str
    state: WorkloadState
    reason: str
    message: str
    base_url: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class WorkloadUsed:
    """For how long a workload had its places on the machine since this was told last."""

    launch_id: str
    name: str
    owner_id: str
    model: str
    device: str
    places: int
    pieces: Sequence[Piece]


class Workload(Base):
    """One launch of a server. A new launch under the same name is a new row: names of launches are never used twice."""

    __tablename__ = "workloads"
    __table_args__ = (
        Index("uq_workloads_wanted_name", "name", unique=True, postgresql_where=text("wanted")),
        Index(None, "created_at"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    model_uri: Mapped[str]
    served_model_name: Mapped[str]
    device: Mapped[str]
    directory: Mapped[str] = mapped_column(default="")
    wanted: Mapped[bool] = mapped_column(default=True)
    """False: it is to end; the row goes once nothing of it runs."""
    state: Mapped[WorkloadState] = mapped_column(default=WorkloadState.STARTING)
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(default="")
    base_url: Mapped[str] = mapped_column(default="")
    owner_id: Mapped[str] = mapped_column(default="", server_default="")
    """Whose use of the machine it is; empty: nobody has said so yet."""
    seen_at: Mapped[datetime | None]
    """When it was last written down that it lives."""
    used_until: Mapped[datetime | None]
    """Until then the ledger knows for how long it had its places."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    def use(self, *, since: datetime, until: datetime) -> WorkloadUsed | None:
        """What it used in this time, without what was told before; None when that is nothing."""
        found = pieces(max(since, self.used_until or since), until)
        if not found:
            return None
        self.used_until = until
        return WorkloadUsed(
            launch_id=self.id,
            name=self.name,
            owner_id=self.owner_id,
            model=self.served_model_name,
            device=self.device,
            places=PLACES,
            pieces=found,
        )

    @property
    def launch_name(self) -> str:
        """Name of the launch: readable, and unlike any launch before."""
        return f"{self.name[:50].rstrip('-')}-{self.id[-12:]}"

    def move(self, state: WorkloadState, *, reason: str, message: str, base_url: str = "") -> WorkloadMoved:
        """Takes over what was observed."""
        self.state, self.reason, self.message, self.base_url = state, reason, message, base_url
        return WorkloadMoved(
            name=self.name,
            owner_id=self.owner_id,
            model_uri=self.model_uri,
            served_model_name=self.served_model_name,
            device=self.device,
            state=state,
            reason=reason,
            message=message,
            base_url=base_url,
            at=utc_now(),
        )
