"""Models, their immutable versions, and deployments with the states they may go through."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Enum, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from espalier_common.db import TYPES, Id, new_id, new_metadata, utc_now


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class Model(Base):
    """A named line of models. The name is unique for its owner; a row lock on it makes version numbers race-free."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("owner_id", "name"), Index("ix_models_newest", "created_at", "id"))

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    owner_id: Mapped[str]
    latest_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The finished model of a run, as the training orchestrator tells it."""

    run_id: str
    uri: str
    manifest_sha256: str
    step: int
    parameters: float
    dataset_version_ids: Sequence[str]
    base_run_id: str | None
    template: str


class ModelVersion(Base):
    """A registered model. Nothing of it changes, but that its base's version is filled in once that is registered."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        UniqueConstraint("model_id", "run_id"),
        Index("ix_model_versions_run_id", "run_id"),
        Index("ix_model_versions_base_run_id", "base_run_id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[Id] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    run_id: Mapped[Id]
    step: Mapped[int]
    dataset_version_ids: Mapped[list[str]]
    base_run_id: Mapped[Id | None]
    base_model_version_id: Mapped[Id | None] = mapped_column(ForeignKey("model_versions.id"))
    uri: Mapped[str]
    manifest_sha256: Mapped[str]
    parameters: Mapped[float]
    template: Mapped[str]
    owner_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    model: Mapped[Model] = relationship(lazy="raise")


class DeploymentState(StrEnum):
    """Where a deployment stands. The first three want a model server, the others want none."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def wants_server(self) -> bool:
        """True while a model server should run."""
        return self in {DeploymentState.PENDING, DeploymentState.STARTING, DeploymentState.READY}


_S = DeploymentState
# Back to PENDING: the server is gone and is launched again. FAILED to STOPPING: the user clears it away.
LEGAL_TRANSITIONS: dict[DeploymentState, frozenset[DeploymentState]] = {
    _S.PENDING: frozenset({_S.STARTING, _S.READY, _S.STOPPING, _S.FAILED}),
    _S.STARTING: frozenset({_S.PENDING, _S.READY, _S.STOPPING, _S.FAILED}),
    _S.READY: frozenset({_S.PENDING, _S.STARTING, _S.STOPPING, _S.FAILED}),
    _S.STOPPING: frozenset({_S.STOPPED}),
    _S.FAILED: frozenset({_S.STOPPING}),
    _S.STOPPED: frozenset(),
}

WORKLOAD_PREFIX = "deployment-"
RELAUNCH_LIMIT = 3
RELAUNCH_WINDOW = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class VersionRegistered:
    """A model version was registered."""

    version: ModelVersion


@dataclass(frozen=True, kw_only=True)
class DeploymentChanged:
    """A deployment went into another state."""

    deployment_id: str
    before: DeploymentState
    after: DeploymentState
    reason: str
    at: datetime


DomainEvent = VersionRegistered | DeploymentChanged


class Deployment(Base):
    """What a user wants served, and what is known of its server.

    `check_at` is when the reconciler looks at it next; null: never, for nothing of its server is left. `launched_by`
    is the process of the registry that launched it last, `relaunches` are the times (Unix seconds) it was launched
    again, `failures` counts the calls to the orchestrator that failed in a row.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        Index(
            "uq_deployments_name_live",
            "name",
            unique=True,
            postgresql_where=text("state IN ('pending', 'starting', 'ready')"),
        ),
        Index("ix_deployments_check_at", "check_at"),
        Index("ix_deployments_newest", "created_at", "id"),
        Index("ix_deployments_name_newest", "name", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    model_version_id: Mapped[Id] = mapped_column(ForeignKey("model_versions.id"))
    device: Mapped[str]
    state: Mapped[DeploymentState] = mapped_column(
        Enum(DeploymentState, native_enum=False, length=16, values_callable=lambda kind: [item.value for item in kind]),
        default=DeploymentState.PENDING,
    )
    reason: Mapped[str] = mapped_column(default="REQUESTED")
    message: Mapped[str] = mapped_column(default="Waits to be launched.")
    base_url: Mapped[str] = mapped_column(default="")
    owner_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    changed_at: Mapped[datetime] = mapped_column(default=utc_now)
    ready_at: Mapped[datetime | None]
    launched_by: Mapped[str] = mapped_column(default="")
    relaunches: Mapped[list[Any]] = mapped_column(default=list)
    failures: Mapped[int] = mapped_column(default=0)
    check_at: Mapped[datetime | None] = mapped_column(default=utc_now)

    version: Mapped[ModelVersion] = relationship(lazy="raise")

    @property
    def workload_name(self) -> str:
        """Name of its model server at the orchestrator: deterministic, so a crash anywhere launches nothing twice."""
        return f"{WORKLOAD_PREFIX}{self.id}"

    def move_to(self, state: DeploymentState, *, reason: str, message: str) -> DeploymentChanged | None:
        """Goes into a state and gives the event; None when it only has a new reason. Raises ValueError when illegal."""
        before = self.state
        self.reason, self.message = reason, message
        if state is before:
            return None
        if state not in LEGAL_TRANSITIONS[before]:
            raise ValueError(f"a deployment cannot go from {before} to {state}")
        self.state, self.changed_at = state, utc_now()
        if state is DeploymentState.READY:
            self.ready_at = self.changed_at
        else:
            self.base_url = ""
        return DeploymentChanged(deployment_id=self.id, before=before, after=state, reason=reason, at=self.changed_at)

    def may_relaunch(self, now: datetime) -> bool:
        """True, and counted, while its server was launched again fewer than 3 times in the last 10 minutes."""
        recent = [moment for moment in self.relaunches if moment > (now - RELAUNCH_WINDOW).timestamp()]
        if len(recent) >= RELAUNCH_LIMIT:
            return False
        self.relaunches = [*recent, now.timestamp()]
        return True

    def wake(self) -> None:
        """The reconciler looks at it at once."""
        self.check_at = utc_now()
