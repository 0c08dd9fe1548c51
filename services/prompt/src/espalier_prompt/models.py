"""Prompts and their versions."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from espalier_common.db import TYPES, Id, new_id, new_metadata, utc_now


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class PromptVersion(Base):
    """A text that is never changed: a change is the next version."""

    __tablename__ = "prompt_versions"

    prompt_id: Mapped[Id] = mapped_column(ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    # Names of the variables in the text, in order of appearance.
    variables: Mapped[list[str]]
    commit_message: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Prompt(Base):
    """A named system prompt; its owner has no other of the same name."""

    __tablename__ = "prompts"
    __table_args__ = (
        UniqueConstraint("owner_id", "name"),
        Index("ix_prompts_owner_id_created_at_id", "owner_id", "created_at", "id"),
        Index("ix_prompts_created_at_id", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str]
    name: Mapped[str]
    newest_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    newest: Mapped[PromptVersion] = relationship(
        primaryjoin="and_(Prompt.id == PromptVersion.prompt_id, Prompt.newest_version == PromptVersion.version)",
        foreign_keys="[PromptVersion.prompt_id, PromptVersion.version]",
        lazy="raise",
        viewonly=True,
    )

    def next_version(self, text: str, *, variables: list[str], commit_message: str) -> PromptVersion:
        """The text as the newest version; the caller stores it."""
        self.newest_version += 1
        return PromptVersion(
            prompt_id=self.id,
            version=self.newest_version,
            text=text,
            variables=variables,
            commit_message=commit_message,
        )


@dataclass(frozen=True)
class PromptVersionCreated:
    """A prompt has a new version."""

    prompt: Prompt
    version: PromptVersion
