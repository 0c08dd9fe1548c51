"""Small conversions that every servicer needs: enums and numbers between entities and messages."""

from typing import Any


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
