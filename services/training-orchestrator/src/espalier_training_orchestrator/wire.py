"""Small conversions that every servicer needs: times and enums between entities and messages."""

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(at: datetime | None) -> Timestamp | None:
    """A Timestamp; None (an unset field) stays None."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def enum_value(enum: Any, prefix: str, name: str) -> Any:
    """`enum_value(RunState, "RUN_STATE", "QUEUED")`; an empty name is the unspecified value."""
    return enum.Value(f"{prefix}_{name.upper() or 'UNSPECIFIED'}")


def enum_name(enum: Any, prefix: str, value: int) -> str:
    """`"QUEUED"` of RUN_STATE_QUEUED; empty when unspecified or unknown to this version."""
    if value not in enum.values():
        return ""
    name = enum.Name(value).removeprefix(f"{prefix}_")
    return "" if name == "UNSPECIFIED" else name


def number(value: float | str) -> float:
    """A number as it is stored in JSON: NaN and infinities are strings there."""
    return float(value)
