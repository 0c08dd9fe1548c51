"""The canonical form of a row: a conversation for `sft`, a text for `pt`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The OpenAI form, which chat templates read."""
        return {"role": self.role.value, "content": self.content}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order: an optional system message first, then user and assistant."""

    messages: tuple[Message, ...]

    def as_dicts(self) -> list[dict[str, str]]:
        """The OpenAI form of all messages."""
        return [message.as_dict() for message in self.messages]

    @property
    def characters(self) -> int:
        """Length of all contents together, white space at their ends left out."""
        return sum(len(message.content.strip()) for message in self.messages)


@dataclass(frozen=True, slots=True)
class Text:
    """One document of plain text."""

    text: str

    @property
    def characters(self) -> int:
        """Length of the text, white space at its ends left out."""
        return len(self.text.strip())


Example = Conversation | Text
