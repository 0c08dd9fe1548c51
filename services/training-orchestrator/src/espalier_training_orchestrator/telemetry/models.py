"""Metric points and pieces of logs. Ids rise in the order of commit within a run, so that an id is a cursor."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from espalier_common.db import BigInt, Id
from espalier_training_orchestrator.entity import Base


class MetricPoint(Base):
    """The values that one line of metrics.jsonl holds."""

    __tablename__ = "metric_points"
    # One step may have several lines (training, evaluation): `series` names which values a line holds.
    __table_args__ = (UniqueConstraint("run_id", "step", "attempt", "series"), Index(None, "run_id", "id"))

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    run_id: Mapped[Id] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[int]
    step: Mapped[int]
    series: Mapped[str]
    epoch: Mapped[float]
    at: Mapped[datetime]
    values: Mapped[dict[str, Any]]
    """Numbers; NaN and infinities as the strings "NaN", "Infinity", "-Infinity", which JSON has no numbers for."""


class LogChunk(Base):
    """A piece of one rank's log. Pieces may overlap; once the attempt has ended they leave no hole."""

    __tablename__ = "log_chunks"
    __table_args__ = (UniqueConstraint("run_id", "attempt", "rank", "offset"),)

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    run_id: Mapped[Id] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[int]
    rank: Mapped[int]
    offset: Mapped[BigInt]
    end: Mapped[BigInt]
    """Offset after the last byte."""
    data: Mapped[bytes]
