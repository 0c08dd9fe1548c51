"""Ids and moments of whatever is stored; apart from `db`, so that who keeps files only need not load SQLAlchemy."""

import secrets
import time
import uuid
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A UUID (version 7) whose text sorts by time of creation, to the millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def is_uuid(text: str) -> bool:
    """Whether this is the id of something, spelled as ids are: lower case, with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
