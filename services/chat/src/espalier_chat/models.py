"""Sessions and their messages, with the states an answer may go through."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Enum, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from espalier_common.db import TYPES, Id, new_id, new_metadata, utc_now

TITLE_LENGTH = 80


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class ChatSession(Base):
    """A conversation with one deployment. `next_position` numbers its messages; a row lock on it keeps their order."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_owner_newest", "owner_id", "created_at", "id"),)

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    title: Mapped[str] = mapped_column(default="")
    deployment_id: Mapped[Id]
    system_prompt: Mapped[str] = mapped_column(default="")
    # Only what was set, under the names of the OpenAI API.
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    owner_id: Mapped[str]
    next_position: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    def take_positions(self, count: int) -> int:
        """The first of the next `count` positions."""
        first = self.next_position
        self.next_position += count
        return first

    def name_after(self, message: str) -> None:
        """Without a title, the beginning of the first message is it."""
        if not self.title:
            words = " ".join(message[: TITLE_LENGTH * 4].split())
            self.title = words if len(words) <= TITLE_LENGTH else f"{words[: TITLE_LENGTH - 1].rstrip()}…"


class Role(StrEnum):
    """Who speaks, in the words of the OpenAI API."""

    USER = "user"
    ASSISTANT = "assistant"


class MessageState(StrEnum):
    """Where a message stands."""

    STREAMING = "streaming"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


def _stored(kind: type[StrEnum]) -> Enum:
    return Enum(kind, native_enum=False, length=16, values_callable=lambda members: [item.value for item in members])


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an answer is; tokens as far as they are known or can be estimated."""

    message_id: str
    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an answer ended, and what it was until then."""

    state: MessageState
    text: str
    error: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    """Not all of these tokens were told by the model server."""
    time_to_first_token: float = 0.0
    duration: float = 0.0
    finished_at: datetime = field(default_factory=utc_now)


class Message(Base):
    """A turn of a session.

    While an answer streams, `touched_at` says when the process that generates it was last alive, and `stop_requested`
    tells that process to stop.
    """

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("session_id", "position"),
        Index(
            "uq_messages_request",
            "session_id",
            "request_id",
            unique=True,
            postgresql_where=text("request_id IS NOT NULL"),
        ),
        # One answer at a time in a session, whatever races.
        Index("uq_messages_streaming", "session_id", unique=True, postgresql_where=text("state = 'streaming'")),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    session_id: Mapped[Id] = mapped_column(ForeignKey("sessions.id"))
    position: Mapped[int]
    role: Mapped[Role] = mapped_column(_stored(Role))
    text: Mapped[str] = mapped_column(default="")
    state: Mapped[MessageState] = mapped_column(_stored(MessageState))
    error: Mapped[str] = mapped_column(default="")
    finish_reason: Mapped[str] = mapped_column(default="")
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    time_to_first_token: Mapped[float] = mapped_column(default=0.0)
    duration: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    touched_at: Mapped[datetime] = mapped_column(default=utc_now)
    stop_requested: Mapped[bool] = mapped_column(default=False)
    # Of an answer: the caller's id of the request that it answers, so that the same request again finds it.
    request_id: Mapped[Id | None]
    # Of an answer: the name under which its deployment serves the model.
    model: Mapped[str] = mapped_column(default="", server_default="")

    def end(self, outcome: Outcome) -> None:
        """Writes down how the answer ended."""
        self.state = outcome.state
        self.text = outcome.text
        self.error = outcome.error
        self.finish_reason = outcome.finish_reason
        self.prompt_tokens = outcome.prompt_tokens
        self.completion_tokens = outcome.completion_tokens
        self.time_to_first_token = outcome.time_to_first_token
        self.duration = outcome.duration

    def cut(self, error: str) -> None:
        """Ends the answer where it is: whoever generated it is gone."""
        self.state, self.error = MessageState.INTERRUPTED, error


class RunningCompletion(Base):
    """A completion over the OpenAI API that is being relayed, and what it has used so far at least.

    Whoever relays it writes it down each second and forgets it at its end; one that is left over was cut by a crash.
    """

    __tablename__ = "running_completions"
    __table_args__ = (Index(None, "touched_at"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    deployment_id: Mapped[str]
    owner_id: Mapped[str]
    model: Mapped[str]
    base_url: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    touched_at: Mapped[datetime] = mapped_column(default=utc_now)


@dataclass(frozen=True, kw_only=True)
class CompletionEnded:
    """A completion over the OpenAI API ended, whatever way."""

    id: str
    deployment_id: str
    owner_id: str
    model: str
    state: MessageState
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    """Not all of these tokens were told by the model server."""
    at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, kw_only=True)
class AnswerEnded:
    """An answer ended, whatever way."""

    message: Message
    deployment_id: str
    owner_id: str
    estimated: bool
    """Not all of its tokens were told by the model server."""
    at: datetime
