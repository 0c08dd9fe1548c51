"""The ledger of use, limits of use, and what is held against them."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Enum, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import BigInt, Id, new_id, utc_now


class Kind(StrEnum):
    """What is counted, under the names of the contract's `UsageKind`."""

    TOKENS_IN = "TOKENS_IN"
    TOKENS_OUT = "TOKENS_OUT"
    GPU_SECONDS = "GPU_SECONDS"
    CPU_SECONDS = "CPU_SECONDS"
    STORED_BYTES = "STORED_BYTES"
    REQUESTS = "REQUESTS"
    CONCURRENT_RUNS = "CONCURRENT_RUNS"

    @property
    def is_level(self) -> bool:
        """What there is at a time counts, and not what was used since the beginning of a period."""
        return self in (Kind.STORED_BYTES, Kind.CONCURRENT_RUNS)

    @property
    def counted(self) -> tuple["Kind", ...]:
        """What counts against a limit of this kind: tokens in limit those out as well."""
        return (Kind.TOKENS_IN, Kind.TOKENS_OUT) if self is Kind.TOKENS_IN else (self,)


TOKENS = Kind.TOKENS_IN.counted
TRAINING = "training"
"""The source of what runs used. Their tokens are in the ledger, but no limit of tokens counts them."""
SERVING = "serving"
"""The source of what model servers used of the machine, whether anybody asks them or not."""
USES = (Kind.REQUESTS, Kind.GPU_SECONDS, Kind.CPU_SECONDS)
"""One entry of these ends each use: what ended well and what did not is counted by them."""


class Period(StrEnum):
    """How often a limit begins anew; NONE for what is kept or runs at a time."""

    NONE = "NONE"
    DAY = "DAY"
    MONTH = "MONTH"


def _stored(kind: type[StrEnum]) -> Enum:
    return Enum(kind, native_enum=False, length=24, create_constraint=False)


_SUMMED = ["user_id", "model", "source", "amount", "estimated"]


class UsageEntry(Base):
    """One use, as the service that saw it reported it. Never changed."""

    __tablename__ = "usage_entries"
    __table_args__ = (
        # Sums of a user or of all in a period are read from an index alone.
        Index("ix_usage_entries_user_source", "user_id", "kind", "at", postgresql_include=["source", "amount"]),
        # Since when a kind is reported.
        Index("ix_usage_entries_kind", "kind", "at"),
        Index("ix_usage_entries_training", "kind", "at", postgresql_where=text("source = 'training'")),
        Index("ix_usage_entries_flow", "at", "kind", postgresql_include=_SUMMED),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(_stored(Kind))
    amount: Mapped[float]
    user_id: Mapped[str]
    model: Mapped[str] = mapped_column(default="")
    source: Mapped[str] = mapped_column(default="")
    reference: Mapped[str] = mapped_column(default="")
    at: Mapped[datetime]
    # None: a part of a use that went on, which ended neither well nor badly.
    succeeded: Mapped[bool | None] = mapped_column(default=True)
    # Seconds; None when it did not queue.
    queue_wait: Mapped[float | None]
    # The amount was not told by who knows it.
    estimated: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    # Of bytes that are kept: the amount by model, with none as "". None: all of it is of `model`.
    by_model: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class UsageDay(Base):
    """Sums of the entries of a day in UTC, but for bytes that are kept.

    A trigger of the database adds to them with each entry (migration 0019); nothing else writes here.
    """

    __tablename__ = "usage_days"
    __table_args__ = (Index("ix_usage_days_user", "user_id", "day"),)

    day: Mapped[datetime] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(_stored(Kind), primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[float]
    # Uses that ended, and those of them that ended well.
    ended: Mapped[BigInt]
    succeeded: Mapped[BigInt]
    # Uses that queued, and for how many seconds in all.
    waits: Mapped[BigInt]
    wait_seconds: Mapped[float]
    # Of the amount.
    estimated: Mapped[float] = mapped_column(server_default=text("0"))


class Quota(Base):
    """A limit of one user, or of the members of a group together."""

    __tablename__ = "quotas"
    __table_args__ = (
        UniqueConstraint("user_id", "kind", "period", name="uq_quotas_user_id"),
        UniqueConstraint("group_id", "kind", "period", name="uq_quotas_group_id"),
        CheckConstraint("(user_id IS NULL) <> (group_id IS NULL)", name="binds_one"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[Id | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    group_id: Mapped[Id | None] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"))
    kind: Mapped[Kind] = mapped_column(_stored(Kind))
    amount: Mapped[float]
    period: Mapped[Period] = mapped_column(_stored(Period))
    time_zone: Mapped[str] = mapped_column(default="UTC")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Hold(Base):
    """An amount of one kind that a reservation holds until it is settled or expires."""

    __tablename__ = "usage_holds"
    __table_args__ = (
        Index(
            "ix_usage_holds_open",
            "user_id",
            "kind",
            postgresql_include=["expires_at", "amount"],
            postgresql_where=text("settled_at IS NULL"),
        ),
        Index(None, "expires_at"),
    )

    reservation_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(_stored(Kind), primary_key=True)
    user_id: Mapped[str]
    amount: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    # A settled one is remembered for a while, so that a late renewal does not bring it back.
    settled_at: Mapped[datetime | None]
