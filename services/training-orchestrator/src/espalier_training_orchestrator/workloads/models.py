"""Workloads: servers that run until they are deleted."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from espalier_common.db import Id, new_id, utc_now
from espalier_training_orchestrator.entity import Base


class WorkloadState(StrEnum):
    """Where a workload stands."""

    STARTING = "STARTING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class WorkloadMoved:
    """A workload went into another state; the fields are those of the workload after it."""

    name: str
    model_uri: str
    served_model_name: str
    device: str
    state: WorkloadState
    reason: str
    message: str
    base_url: str
    at: datetime


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
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    @property
    def launch_name(self) -> str:
        """Name of the launch: readable, and unlike any launch before."""
        return f"{self.name[:50].rstrip('-')}-{self.id[-12:]}"

    def move(self, state: WorkloadState, *, reason: str, message: str, base_url: str = "") -> WorkloadMoved:
        """Takes over what was observed."""
        self.state, self.reason, self.message, self.base_url = state, reason, message, base_url
        return WorkloadMoved(
            name=self.name,
            model_uri=self.model_uri,
            served_model_name=self.served_model_name,
            device=self.device,
            state=state,
            reason=reason,
            message=message,
            base_url=base_url,
            at=utc_now(),
        )
