"""JSON as RFC 8259 means it, with bounds: what a stricter reader would refuse later is refused here, with a place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from espalier_data.findings import Flaw, Reason, describe, pointer

MAX_DEPTH = 64
"""Deeper nesting is a bomb, not a conversation."""
MAX_NUMBER_DIGITS = 300

# Possessive, so that a line of quotes and backslashes costs linear time.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse(line: bytes) -> Any:
    """The value of one JSON line. Raises Flaw, with reason and pointer, for anything that is not clean JSON."""
    _check_depth(line)
    text = _decode(line)
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
            object_pairs_hook=_object_without_duplicates,
        )
    except json.JSONDecodeError as error:
        found = "the end of the line" if error.pos >= len(text) else f"{text[error.pos : error.pos + 20]!a}"
        raise Flaw(
            "", Reason.NOT_JSON, f"valid JSON ({error.msg.lower()})", f"{found} at column {error.colno}"
        ) from None
    except RecursionError:
        raise Flaw("", Reason.TOO_DEEP, f"at most {MAX_DEPTH} levels of nesting", "more") from None
    if b"\\u" in line or b"\0" in line:
        _check_characters(value)
    return value


def _check_depth(line: bytes) -> None:
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRUCTURE.finditer(line):
        token = match.group()
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise Flaw("", Reason.TOO_DEEP, f"at most {MAX_DEPTH} levels of nesting", f"more, at byte {match.start()}")


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{line[error.start]:02x} at byte {error.start}"
        raise Flaw("", Reason.NOT_UTF8, "UTF-8 text", found) from None


def _refuse_constant(name: str) -> NoReturn:
    raise Flaw("", Reason.NOT_FINITE, "a finite number", name)


def _finite_float(literal: str) -> float:
    _check_digits(literal)
    value = float(literal)
    if not math.isfinite(value):
        raise Flaw("", Reason.NOT_FINITE, "a finite number", literal)
    return value


def _bounded_int(literal: str) -> int:
    _check_digits(literal)
    return int(literal)


def _check_digits(literal: str) -> None:
    if len(literal) > MAX_NUMBER_DIGITS:
        expected = f"a number of at most {MAX_NUMBER_DIGITS} digits"
        raise Flaw("", Reason.NUMBER_TOO_LONG, expected, f"{len(literal)} digits")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Flaw("", Reason.DUPLICATE_KEY, "each key once", f"{describe(twice)} twice")
    return value


def _check_characters(value: Any) -> None:
    for place, text in _strings(value, ()):
        if "\0" in text:
            raise Flaw(
                pointer(*place), Reason.NUL_CHARACTER, "text without NUL", f"NUL at character {text.index(chr(0))}"
            )
        for index, character in enumerate(text):
            if "\ud800" <= character <= "\udfff":
                found = f"the lone surrogate U+{ord(character):04X} at character {index}"
                raise Flaw(pointer(*place), Reason.LONE_SURROGATE, "whole Unicode characters", found)


def _strings(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    match value:
        case str():
            yield place, value
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, (*place, index))
        case dict():
            for key, item in value.items():
                yield place, key
                yield from _strings(item, (*place, key.encode("utf-8", "replace").decode()))
