"""Evaluations and their items."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from espalier_common.db import TYPES, Id, new_id, new_metadata, utc_now


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class Scorer(StrEnum):
    """How an answer is scored."""

    ROUGE_L = "rouge_l"
    EXACT_MATCH = "exact_match"


class EvaluationItem(Base):
    """One answer, what it was scored against, and its score from 0 to 1."""

    __tablename__ = "evaluation_items"

    evaluation_id: Mapped[Id] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str]
    answer: Mapped[str]
    score: Mapped[float]


class Evaluation(Base):
    """Scored answers; never changed. The mean and the count are kept, so that a list need not read the items."""

    __tablename__ = "evaluations"
    __table_args__ = (
        CheckConstraint("score >= 0 AND score <= 1", name="score_is_a_share"),
        Index("ix_evaluations_owner_id_created_at_id", "owner_id", "created_at", "id"),
        Index("ix_evaluations_created_at_id", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str]
    name: Mapped[str]
    scorer: Mapped[str]
    score: Mapped[float]
    item_count: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    items: Mapped[list[EvaluationItem]] = relationship(
        order_by=EvaluationItem.position, lazy="raise", cascade="all, delete-orphan"
    )

    @classmethod
    def of(cls, items: Sequence[EvaluationItem], *, name: str, scorer: Scorer, owner_id: str) -> "Evaluation":
        """An evaluation of at least one item; its score is their mean."""
        for position, item in enumerate(items):
            item.position = position
        score = sum(item.score for item in items) / len(items)
        return cls(name=name, scorer=scorer, owner_id=owner_id, items=list(items), item_count=len(items), score=score)


@dataclass(frozen=True)
class EvaluationCreated:
    """Answers were scored and kept."""

    evaluation: Evaluation
