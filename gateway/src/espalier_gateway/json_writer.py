"""A message as JSON: proto field names, defaults written out, unset messages and unset optional fields left out.

One writer is compiled per message type at its first use; it is several times faster than protobuf's own, which
reads the descriptor anew for each message (10,000 metric points go through here in one answer).
"""

import base64
import math
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from espalier_gateway.json_reader import FREE_FORM
from espalier_gateway.map_fields import is_map, key_of, value_of
from espalier_gateway.well_known import is_text_type, text_writer

Write = Callable[[Any], Any]


def write_message(message: Message) -> bytes:
    """JSON of the message, UTF-8."""
    return orjson.dumps(as_value(message))


def as_value(message: Message) -> Any:
    """The message as what JSON is made of: dicts, lists, texts, numbers."""
    return _writer_of(message.DESCRIPTOR)(message)


@cache
def _writer_of(descriptor: Descriptor) -> Write:
    if is_text_type(descriptor.full_name):
        return text_writer(descriptor.full_name)
    if descriptor.full_name in FREE_FORM:
        return json_format.MessageToDict
    # Resolved at the first message, since a type may contain itself.
    plan: list[tuple[str, bool, Write]] = []

    def write(message: Any) -> dict[str, Any]:
        if not plan:
            plan.extend((field.name, field.has_presence, _field_writer(field)) for field in descriptor.fields)
        return {
            name: write_field(getattr(message, name))
            for name, presence, write_field in plan
            if not presence or message.HasField(name)
        }

    return write


def _field_writer(field: FieldDescriptor) -> Write:
    if is_map(field):
        key = _key_writer(key_of(field))
        value = _single_writer(value_of(field))
        return lambda entries: {key(name): value(entries[name]) for name in entries}
    single = _single_writer(field)
    if field.is_repeated:
        return lambda items: [single(item) for item in items]
    return single


def _single_writer(field: FieldDescriptor) -> Write:
    if field.message_type is not None:
        return _writer_of(field.message_type)
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode("ascii")
    return _BY_KIND.get(field.cpp_type, _same)


def _key_writer(field: FieldDescriptor) -> Write:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda key: "true" if key else "false"
    return str


def _same(value: Any) -> Any:
    return value


def _finite_or_name(value: float) -> float | int | str:
    """Whole numbers without ".0", as JavaScript writes them; JSON has no word for the non-finite ones but texts."""
    if math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _shortest(value: float) -> float:
    """A float32 with no more digits than it holds."""
    short = float(f"{value:.6g}")
    return short if math.isnan(value) or _as_float32(short) == _as_float32(value) else float(f"{value:.9g}")


def _as_float32(value: float) -> bytes:
    return struct.pack("<f", value)


_BY_KIND: dict[int, Write] = {
    # A JavaScript number cannot hold 64 bits.
    FieldDescriptor.CPPTYPE_INT64: str,
    FieldDescriptor.CPPTYPE_UINT64: str,
    FieldDescriptor.CPPTYPE_DOUBLE: _finite_or_name,
    FieldDescriptor.CPPTYPE_FLOAT: lambda value: _finite_or_name(_shortest(value)),
}
