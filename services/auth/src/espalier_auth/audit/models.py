"""Events of the audit log, and the chain that they form."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import BigInteger, Index, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, utc_now

GENESIS = bytes(32)
"""The hash before the first event."""

# Compared byte by byte, so that an index serves "begins with".
_Bytewise = String(collation="C")


class Result(StrEnum):
    """How a call ended."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    FAILED = "FAILED"


class AuditEntry(Base):
    """One event, never changed: triggers of the table refuse it. `sequence` has no gaps."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_time", "time", "sequence"),
        Index("ix_audit_events_actor_id", "actor_id", "time", "sequence"),
        Index("ix_audit_events_actor_name", "actor_name", "time", "sequence"),
        Index("ix_audit_events_action", "action", "time", "sequence"),
        Index("ix_audit_events_target", "target", "time", "sequence"),
        Index("ix_audit_events_address", "address", "time", "sequence"),
        Index("ix_audit_events_result", "result", "time", "sequence"),
        Index("ix_audit_events_words", "words", postgresql_using="gin"),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[Id] = mapped_column(unique=True)
    time: Mapped[datetime]
    service: Mapped[str]
    actor_id: Mapped[str]
    actor_name: Mapped[str]
    action: Mapped[str] = mapped_column(_Bytewise)
    target: Mapped[str] = mapped_column(_Bytewise)
    result: Mapped[str]
    reason: Mapped[str]
    address: Mapped[str]
    request_id: Mapped[str]
    before: Mapped[str]
    after: Mapped[str]
    api_key_id: Mapped[str] = mapped_column(server_default="")
    # What a search finds it by, derived from the rest; chained as well, or a change of it would hide an event.
    words: Mapped[list[str]] = mapped_column(ARRAY(String))
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class ForwardingCursor(Base):
    """How far the log has gone to one destination."""

    __tablename__ = "audit_forwarding"

    # Scheme, host and port: what else is in the address may be secret.
    destination: Mapped[str] = mapped_column(primary_key=True)
    # Of the last event that it confirmed; 0 before the first.
    sequence: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event as a service tells it."""

    id: str
    time: datetime
    service: str
    actor_id: str
    actor_name: str
    action: str
    target: str
    result: Result
    reason: str
    address: str
    request_id: str
    before: str
    after: str
    api_key_id: str = ""


CHAINED = ("sequence", "id", "time", *tuple(NewEvent.__dataclass_fields__)[2:-1], "words", "api_key_id")
"""Columns that the hash covers, in this order."""


def hash_of(before: bytes, values: tuple[Any, ...]) -> bytes:
    """SHA-256 over the hash before and the event's values in the order of `CHAINED`, as a JSON array.

    An empty API key is left out, so that events from before keys were told have the hash that they had.
    """
    sequence, id, time, *rest = values if values[-1] else values[:-1]
    moment = time.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(before + orjson.dumps([sequence, str(id), moment, *rest])).digest()


@dataclass(frozen=True)
class Head:
    """A place in the chain. As text: sequence, colon, hash in hexadecimal."""

    sequence: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"

    @staticmethod
    def read(text: str) -> "Head":
        """The place of the text. Raises ValueError."""
        sequence, _, digest = text.strip().partition(":")
        head = Head(int(sequence), bytes.fromhex(digest))
        if len(head.hash) != len(GENESIS):
            raise ValueError("the hash has another length")
        return head


START = Head(0, GENESIS)

_PARTS = re.compile(r"[^\w]+|_")
_CAMEL = re.compile(r"[A-Z][a-z0-9]+")
_EVERYWHERE = frozenset({"", "espalier", "v1"})
MAX_WORDS = 60


def words_of(event: NewEvent) -> list[str]:
    """What a search finds the event by: whole values, and the words in them."""
    found = dict.fromkeys(split_words(event.request_id))
    actor = (event.actor_name, event.actor_id, event.api_key_id)
    for text in (event.action, event.target, *actor, event.reason, event.address):
        for piece in text.split("/"):
            found.update(dict.fromkeys(split_words(piece)))
            found.update(dict.fromkeys(_PARTS.split(piece.lower())))
            found.update(dict.fromkeys(word.lower() for word in _CAMEL.findall(piece)))
    return [word for word in found if word not in _EVERYWHERE][:MAX_WORDS]


def split_words(text: str) -> list[str]:
    """The words of a search, as they are compared."""
    return [word[:200] for word in re.split(r"[\s/]+", text.lower()) if word]
