"""Field bounds, read from the option `espalier.common.v1.field` and checked before any handler runs.

All violations are found at once, each with the path of its field. Rules hold for set values: an empty string or an
unset number passes `min_length` and `minimum` unless the field is required. Within the resource of an update, one
beside a field `update_mask`, nothing is required. For every message, asked or not: text carries no NUL, numbers are
finite, enum values are known, timestamps lie within the years 1 to 9999.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from espalier.common.v1 import options_pb2
from espalier_common.errors import FieldViolation
from espalier_common.identifiers import is_uuid

DEFAULT_MAX_LENGTH = 1 << 20
DEFAULT_MAX_ITEMS = 10_000
MAX_VIOLATIONS = 100

Check = Callable[[Any, str], Iterator[FieldViolation]]

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
_FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}


def violations(message: Message) -> list[FieldViolation]:
    """Everything wrong with the message, at most 100 findings."""
    return list(islice(_check_message(message, ""), MAX_VIOLATIONS))


def _check_message(message: Message, prefix: str, *, partial: bool = False) -> Iterator[FieldViolation]:
    for field, rule, check in _plan(message.DESCRIPTOR):
        path = f"{prefix}{field.name}"
        if _is_set(message, field):
            yield from _check_field(getattr(message, field.name), field=field, rule=rule, check=check, path=path)
        elif (rule.required or rule.min_items) and not partial:
            description = f"must have at least {rule.min_items} items" if rule.min_items else "is required"
            yield FieldViolation(path, description, "REQUIRED")
    if bounds := _MOMENTS.get(message.DESCRIPTOR.full_name):
        yield from _check_moment(message, bounds, prefix.rstrip("."))


@cache
def _plan(descriptor: Descriptor) -> tuple[tuple[FieldDescriptor, options_pb2.FieldRule, Check], ...]:
    plan = []
    for field in descriptor.fields:
        rule = field.GetOptions().Extensions[options_pb2.field]
        plan.append((field, rule, _check_of(field, rule)))
    return tuple(plan)


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.has_presence:
        return message.HasField(field.name)
    return bool(getattr(message, field.name))


def _check_field(
    value: Any, *, field: FieldDescriptor, rule: options_pb2.FieldRule, check: Check, path: str
) -> Iterator[FieldViolation]:
    if not field.is_repeated:
        if rule.required and field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not value:
            yield FieldViolation(path, "is required", "REQUIRED")
        yield from check(value, path)
        return
    count = len(value)
    if rule.min_items and count < rule.min_items:
        yield FieldViolation(path, f"must have at least {rule.min_items} items; it has {count}", "TOO_FEW")
    if count > (limit := rule.max_items or DEFAULT_MAX_ITEMS):
        yield FieldViolation(path, f"must have at most {limit} items; it has {count}", "TOO_MANY")
        return
    if _is_map(field):
        yield from _check_map(value, check, path)
    else:
        for index, item in enumerate(value):
            yield from check(item, f"{path}[{index}]")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _check_map(entries: Any, check: Check, path: str) -> Iterator[FieldViolation]:
    for key in entries:
        if isinstance(key, str):
            yield from _check_text(key, f"{path} (key)", maximum=DEFAULT_MAX_LENGTH)
        # The key is a caller's text: shown shortened and quoted.
        yield from check(entries[key], f"{path}[{str(key)[:64]!r}]")


def _check_of(field: FieldDescriptor, rule: options_pb2.FieldRule) -> Check:
    if field.message_type is not None and _is_map(field):
        return _check_of(field.message_type.fields_by_name["value"], rule)
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        # An update carries the changed fields alone: the mask says which.
        partial = field.containing_type is not None and "update_mask" in field.containing_type.fields_by_name
        return lambda value, path: _check_message(value, f"{path}.", partial=partial)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        return _bytes_check(rule) if is_bytes else _string_check(rule)
    if kind in _INTEGERS or kind in _FLOATS:
        return _number_check(rule)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_check(field)
    return _nothing


def _nothing(value: Any, path: str) -> Iterator[FieldViolation]:  # noqa: ARG001
    return iter(())


def _string_check(rule: options_pb2.FieldRule) -> Check:
    pattern = re.compile(rule.pattern) if rule.pattern else None
    maximum = rule.max_length or DEFAULT_MAX_LENGTH

    def check(value: str, path: str) -> Iterator[FieldViolation]:
        yield from _check_text(value, path, maximum=maximum)
        if not value:
            return
        if len(value) < rule.min_length:
            description = f"must have at least {rule.min_length} characters; it has {len(value)}"
            yield FieldViolation(path, description, "TOO_SHORT")
        if pattern is not None and len(value) <= maximum and not pattern.fullmatch(value):
            yield FieldViolation(path, f"must match {rule.pattern}", "PATTERN")
        if rule.uuid and not is_uuid(value):
            description = "must be a UUID such as 018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
            yield FieldViolation(path, description, "UUID")

    return check


def _check_text(value: str, path: str, *, maximum: int) -> Iterator[FieldViolation]:
    # Lone surrogates need no check: protobuf accepts valid UTF-8 alone, from the wire and from Python.
    if len(value) > maximum:
        yield FieldViolation(path, f"must have at most {maximum} characters; it has {len(value)}", "TOO_LONG")
    if "\x00" in value:
        yield FieldViolation(path, f"has a NUL character at position {value.index(chr(0))}; remove it", "NUL")


def _bytes_check(rule: options_pb2.FieldRule) -> Check:
    def check(value: bytes, path: str) -> Iterator[FieldViolation]:
        if value and len(value) < rule.min_length:
            yield FieldViolation(path, f"must have at least {rule.min_length} bytes; it has {len(value)}", "TOO_SHORT")
        if rule.max_length and len(value) > rule.max_length:
            yield FieldViolation(path, f"must have at most {rule.max_length} bytes; it has {len(value)}", "TOO_LONG")

    return check


def _number_check(rule: options_pb2.FieldRule) -> Check:
    minimum = rule.minimum if rule.HasField("minimum") else -math.inf
    maximum = rule.maximum if rule.HasField("maximum") else math.inf

    def check(value: float, path: str) -> Iterator[FieldViolation]:
        if not math.isfinite(value):
            if not rule.allow_non_finite:
                yield FieldViolation(path, f"must be a finite number; it is {value}", "NOT_FINITE")
        elif value < minimum:
            yield FieldViolation(path, f"must be at least {minimum:g}; it is {value:g}", "TOO_SMALL")
        elif value > maximum:
            yield FieldViolation(path, f"must be at most {maximum:g}; it is {value:g}", "TOO_GREAT")

    return check


def _enum_check(field: FieldDescriptor) -> Check:
    known = field.enum_type.values_by_number if field.enum_type else {}

    def check(value: int, path: str) -> Iterator[FieldViolation]:
        if value not in known:
            names = ", ".join(known[number].name for number in sorted(known) if number)
            yield FieldViolation(path, f"must be one of {names}; it is {value}", "UNKNOWN_VALUE")

    return check


# Seconds and nanoseconds that a message of this type may carry: years 1 to 9999, counted forward from the second even
# before 1970, and the length of 10,000 years.
_MOMENTS = {
    "google.protobuf.Timestamp": (-62_135_596_800, 253_402_300_799, 0),
    "google.protobuf.Duration": (-315_576_000_000, 315_576_000_000, -999_999_999),
}


def _check_moment(message: Any, bounds: tuple[int, int, int], path: str) -> Iterator[FieldViolation]:
    first, last, least = bounds
    if not first <= message.seconds <= last or not least <= message.nanos <= 999_999_999:
        yield FieldViolation(path, "is outside the range of its type", "OUT_OF_RANGE")
