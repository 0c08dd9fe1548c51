"""JSON as RFC 8259 means it, and one thing stricter: a name stands once in an object.

Python's own parser lets NaN, overflowing numbers, lone surrogates and duplicate names through; each of these has
brought some server down or past a check. Here they are errors that say where.
"""

import json
from typing import Any

import orjson

from espalier_gateway.errors import MalformedRequest

MAX_DEPTH = 64


def parse_json(body: bytes) -> Any:
    """The value in the bytes. Raises MalformedRequest that says what is wrong and where."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(_why_not(body, error)) from error
    if _deeper_than(value, MAX_DEPTH):
        raise MalformedRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict | list):
        # orjson keeps the last of two equal names and says nothing, hence this second reading.
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=_skip, parse_float=_skip)
    return value


def _why_not(body: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as wrong:  # of which orjson gives no place
        return f"The body is not UTF-8 from byte {wrong.start + 1} on."
    return f"The body is no valid JSON: {error}."


def _deeper_than(value: Any, limit: int) -> bool:
    """Level by level, so that no depth exhausts the stack."""
    level = [value]
    for _ in range(limit + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return True


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedRequest(f"The name {twice[:100]!r} stands twice in one object of the body.")


def _skip(_: str) -> None:
    """Numbers were read already; Python refuses some long ones that JSON allows."""
