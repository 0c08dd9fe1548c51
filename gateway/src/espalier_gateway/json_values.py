"""JSON values, and texts of paths and queries, as values of protobuf scalars; what does not fit raises Unfit."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

Scalar = bool | int | float | str | bytes


class Unfit(Exception):
    """The value does not fit; the message continues "the field …"."""


_INTEGER_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_FLOAT = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]


def read_scalar(field: FieldDescriptor, value: Any) -> Scalar:
    """A value out of a JSON body."""
    return _READERS[field.cpp_type](field, value)


def read_text(field: FieldDescriptor, text: str) -> Scalar:
    """A value out of a path or a query, where all is text."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in {"true", "false"}:
            raise Unfit(f"must be true or false; it is {shown(text)}")
        return text == "true"
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM and re.fullmatch(r"-?[0-9]{1,10}", text):
        return _enum(field, int(text))
    return read_scalar(field, text)


def shown(value: Any) -> str:
    """A caller's value for a sentence: its kind, or itself when it is short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _bool(_: FieldDescriptor, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"must be true or false; it is {shown(value)}")
    return value


def _integer(field: FieldDescriptor, value: Any) -> int:
    number = value
    if (isinstance(value, str) and _WHOLE.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise Unfit(f"must be a whole number; it is {shown(value)}")
    low, high = _INTEGER_BOUNDS[field.cpp_type]
    if not low <= number <= high:
        raise Unfit(f"must lie between {low} and {high}; it is {shown(value)}")
    return number


def _float(field: FieldDescriptor, value: Any) -> float:
    if isinstance(value, str):
        numeric = len(value) <= 400 and _NUMBER.fullmatch(value)
        number = float(value) if numeric else _NON_FINITE.get(value)
        if number is None or (math.isinf(number) and value not in _NON_FINITE):
            raise Unfit(f"must be a number; it is {shown(value)}")
        return number
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"must be a number; it is {shown(value)}")
    number = float(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and math.isfinite(number) and abs(number) > _MAX_FLOAT:
        raise Unfit(f"must lie within ±{_MAX_FLOAT:g}; it is {shown(value)}")
    return number


def _string_or_bytes(field: FieldDescriptor, value: Any) -> str | bytes:
    if not isinstance(value, str):
        kind = "base64 text" if field.type == FieldDescriptor.TYPE_BYTES else "a string"
        raise Unfit(f"must be {kind}; it is {shown(value)}")
    return _base64(value) if field.type == FieldDescriptor.TYPE_BYTES else value


def _base64(text: str) -> bytes:
    """Standard or URL-safe, with or without padding, as protobuf's JSON allows."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unfit(f"must be base64 text; it is {shown(text)}") from error


def _enum(field: FieldDescriptor, value: Any) -> int:
    enum = cast(EnumDescriptor, field.enum_type)
    if isinstance(value, str) and value in enum.values_by_name:
        return int(enum.values_by_name[value].number)
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    # Compared one by one: the map of numbers looks at their last 32 bits alone.
    if not isinstance(number, bool) and any(number == each.number for each in enum.values):
        return int(number)
    names = ", ".join(each.name for each in enum.values if each.number)
    raise Unfit(f"must be one of {names}; it is {shown(value)}")


_READERS: dict[int, Callable[[FieldDescriptor, Any], Scalar]] = {
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
    FieldDescriptor.CPPTYPE_UINT32: _integer,
    FieldDescriptor.CPPTYPE_UINT64: _integer,
    FieldDescriptor.CPPTYPE_FLOAT: _float,
    FieldDescriptor.CPPTYPE_DOUBLE: _float,
    FieldDescriptor.CPPTYPE_STRING: _string_or_bytes,
    FieldDescriptor.CPPTYPE_ENUM: _enum,
}
