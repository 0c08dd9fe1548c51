"""Runs, attempts, checkpoints and the timeline; and the one table of legal transitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from espalier_common.db import BigInt, Id, new_id, utc_now
from espalier_training_orchestrator.entity import Base
from espalier_training_orchestrator.errors import IllegalTransition
from espalier_training_orchestrator.occupancy import Piece, pieces
from espalier_training_orchestrator.runs.spec import RunSpec


class RunState(StrEnum):
    """Where a run or an attempt stands."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Nothing of it runs and nothing will, unless the user resumes it."""
        return self in (RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)

    @property
    def occupies(self) -> bool:
        """It holds resources of the machine."""
        return self in (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)


# Every way a run may go. A resumed run waits in the queue again, so STOPPED is reached from there too.
TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.STARTING, RunState.STOPPED, RunState.FAILED, RunState.CANCELLED}),
    RunState.STARTING: frozenset(
        {RunState.RUNNING, RunState.STOPPING, RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED}
    ),
    RunState.RUNNING: frozenset({RunState.STOPPING, RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED}),
    RunState.STOPPING: frozenset({RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
    RunState.STOPPED: frozenset({RunState.QUEUED}),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


class StopMode(StrEnum):
    """How a stop ends: with a checkpoint, or at once."""

    SAVE = "SAVE"
    NOW = "NOW"


@dataclass(frozen=True, kw_only=True)
class RunMoved:
    """A run went into another state."""

    run_id: str
    owner_id: str
    before: RunState | None
    """None: it was created."""
    after: RunState
    reason: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class RunUsed:
    """What the attempt of a run used since this was told last; once it is over, also what it held until now."""

    run_id: str
    owner_id: str
    reservation_id: str
    attempt_id: str
    """Empty when nothing was launched; nothing was used then."""
    device: str
    ranks: int
    pieces: Sequence[Piece]
    """The time that was not told of before."""
    goes_on: bool
    """The attempt still runs, and keeps what it holds."""
    queue_wait: float
    """Seconds in the queue before the attempt."""
    tokens: int
    """That the attempt trained on in this time."""
    model: str
    succeeded: bool
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a run is, as its attempt tells it; None where it does not say."""

    step: int
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    tokens_per_second: float = 0.0
    eta_seconds: float | None = None


class Run(Base):
    """What a user asked for and what became of it."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("owner_id", "request_id"),
        Index(None, "state", "queued_at"),
        Index(None, "created_at", "id"),
        Index(None, "owner_id", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str]
    name: Mapped[str]
    document: Mapped[dict[str, Any]]
    """The spec as it was asked for; `spec` gives it typed. Never changes."""
    request_id: Mapped[Id | None]
    model: Mapped[str] = mapped_column(default="", server_default="")
    """Under which the ledger of use counts it: the model it starts from, and its own name where it starts one."""
    world_size: Mapped[int]
    device: Mapped[str]
    state: Mapped[RunState] = mapped_column(default=RunState.QUEUED)
    reason: Mapped[str] = mapped_column(default="QUEUED")
    message: Mapped[str] = mapped_column(default="")
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest attempt; 0 before the first."""
    fence: Mapped[int] = mapped_column(default=0)
    """Rises with every registration of a runner; only the newest holder may write."""
    step: Mapped[int] = mapped_column(default=0)
    total_steps: Mapped[int] = mapped_column(default=0)
    epoch: Mapped[float] = mapped_column(default=0.0)
    loss: Mapped[float | None]
    tokens_per_second: Mapped[float] = mapped_column(default=0.0)
    eta_seconds: Mapped[float | None]
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)
    resumable: Mapped[bool] = mapped_column(default=False)
    stop_mode: Mapped[StopMode | None]
    stop_deadline: Mapped[datetime | None]
    stop_forced: Mapped[bool] = mapped_column(default=False)
    """The deadline of a stop with save passed, so that its attempt is killed."""
    reservation_id: Mapped[str] = mapped_column(default="", server_default="")
    """What it holds of its owner's limits from the queue to the end; another one each time that it is queued."""
    model_bytes: Mapped[BigInt] = mapped_column(default=0, server_default="0")
    """Of the finished model and its adapter; 0 while there is none."""
    queued_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""
        return RunSpec.model_validate(self.document)

    def move(self, to: RunState, *, reason: str, message: str) -> RunMoved:
        """Goes into another state. Raises IllegalTransition where the table knows no such way."""
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"A run that is {self.state} cannot become {to}.")
        now = utc_now()
        moved = RunMoved(run_id=self.id, owner_id=self.owner_id, before=self.state, after=to, reason=reason, at=now)
        self.state, self.reason, self.message = to, reason, message
        if to is RunState.QUEUED:
            self.queued_at, self.ended_at = now, None
        if to.is_terminal:
            self.ended_at, self.eta_seconds = now, None
        if to.is_terminal or to is RunState.QUEUED:
            self.stop_mode, self.stop_deadline, self.stop_forced = None, None, False
            self.resumable = False
        if to is RunState.RUNNING and self.started_at is None:
            self.started_at = now
        return moved

    def advance(self, step: Step) -> None:
        """Takes over how far the attempt is; what it leaves out stays as it was."""
        self.step = step.step
        self.total_steps = step.total_steps or self.total_steps
        self.epoch = step.epoch or self.epoch
        self.loss = self.loss if step.loss is None else step.loss
        self.tokens_per_second = step.tokens_per_second or self.tokens_per_second
        self.eta_seconds = step.eta_seconds


class Attempt(Base):
    """One launch of a run."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("run_id", "number"), Index(None, "released", "ended_at"))

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    run_id: Mapped[Id] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int]
    name: Mapped[str]
    """Name of the launch; never used twice."""
    directory: Mapped[str]
    nonce: Mapped[str]
    token_hash: Mapped[str]
    state: Mapped[RunState] = mapped_column(default=RunState.STARTING)
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(default="")
    exit_code: Mapped[int | None]
    resumed_from: Mapped[str] = mapped_column(default="")
    """Directory of the checkpoint it begins from; empty from the start."""
    resumed_from_step: Mapped[int] = mapped_column(default=0)
    last_step: Mapped[int] = mapped_column(default=0)
    tokens_before: Mapped[BigInt] = mapped_column(default=0, server_default="0")
    """Tokens that the run had trained on at the checkpoint it begins from."""
    tokens: Mapped[BigInt] = mapped_column(default=0, server_default="0")
    """Tokens that it trained on itself, as far as they were counted last."""
    tokens_told: Mapped[BigInt] = mapped_column(default=0, server_default="0")
    """Those of them that the ledger of use knows."""
    log_tail: Mapped[list[str]] = mapped_column(default=list)
    fence: Mapped[int] = mapped_column(default=0)
    host: Mapped[str] = mapped_column(default="")
    pid: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    heartbeat_at: Mapped[datetime | None]
    launched_at: Mapped[datetime | None]
    """None: nothing of it is known to have run."""
    used_until: Mapped[datetime | None]
    """Until then the ledger knows for how long it had its ranks."""
    ended_at: Mapped[datetime | None]
    released: Mapped[bool] = mapped_column(default=False)
    """The launcher holds nothing of it any more."""

    def use(self, until: datetime) -> list[Piece]:
        """For how long it had its ranks since this was asked last: nothing if it was never launched."""
        since = self.used_until or self.launched_at
        if since is None:
            return []
        self.used_until = max(since, until)
        return pieces(since, until) or [Piece(since, since)]

    def train(self) -> int:
        """The tokens that were counted since this was asked last."""
        fresh, self.tokens_told = max(0, self.tokens - self.tokens_told), max(self.tokens, self.tokens_told)
        return fresh

    def end(self, state: RunState, *, reason: str, message: str, at: datetime) -> None:
        """It is over, whatever it was; the first end stands."""
        if self.ended_at is not None:
            raise IllegalTransition(f"Attempt {self.number} of run {self.run_id} has ended already.")
        self.state, self.reason, self.message, self.ended_at = state, reason, message, at


class Checkpoint(Base):
    """A complete, verified state that a run can go on from."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("run_id", "step"),)

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    run_id: Mapped[Id] = mapped_column(ForeignKey("runs.id"))
    step: Mapped[int]
    attempt: Mapped[int]
    uri: Mapped[str]
    manifest_sha256: Mapped[str]
    size_bytes: Mapped[BigInt]
    created_at: Mapped[datetime]


class RunEvent(Base):
    """Something that happened to a run."""

    __tablename__ = "run_events"
    __table_args__ = (Index(None, "run_id", "id"),)

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    run_id: Mapped[Id] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str]
    message: Mapped[str]
    actor_id: Mapped[str] = mapped_column(default="")
    at: Mapped[datetime] = mapped_column(default=utc_now)
