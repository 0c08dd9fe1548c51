"""The well-known types whose JSON is a text: Timestamp (RFC 3339), Duration ("1.5s"), FieldMask ("name,user.id").

FieldMask paths are proto field names, as everywhere in this API; lowerCamelCase is understood too.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from espalier_gateway.json_values import Unfit, shown

_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
_CAMEL = re.compile(r"[A-Z]")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SPAN = re.compile(r"-?\d{1,12}(\.\d{1,9})?s", re.ASCII)


def _read_timestamp(message: Any, text: str) -> None:
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    message.FromJsonString(text)


def _read_duration(message: Any, text: str) -> None:
    if not _SPAN.fullmatch(text):
        raise ValueError(text)
    message.FromJsonString(text)


def _read_mask(message: Any, text: str) -> None:
    for path in filter(None, (part.strip() for part in text.split(","))):
        if not _PATH.fullmatch(path):
            raise ValueError(path)
        message.paths.append(path if "_" in path else _CAMEL.sub(lambda found: f"_{found[0].lower()}", path))


_READERS: Mapping[str, tuple[Callable[[Any, str], None], str]] = {
    Timestamp.DESCRIPTOR.full_name: (_read_timestamp, "a moment such as 2026-11-24T05:41:00Z"),
    Duration.DESCRIPTOR.full_name: (_read_duration, "a duration in seconds such as 1.5s"),
    FieldMask.DESCRIPTOR.full_name: (_read_mask, "field names with commas between them, such as display_name,roles"),
}
_WRITERS: Mapping[str, Callable[[Any], str]] = {
    Timestamp.DESCRIPTOR.full_name: lambda message: str(message.ToJsonString()),
    Duration.DESCRIPTOR.full_name: lambda message: str(message.ToJsonString()),
    FieldMask.DESCRIPTOR.full_name: lambda message: ",".join(message.paths),
}


def is_text_type(full_name: str) -> bool:
    """Whether messages of this type are texts in JSON."""
    return full_name in _READERS


def read_text_type(message: Message, value: Any) -> None:
    """Fills the message from its text. Raises Unfit."""
    read, form = _READERS[message.DESCRIPTOR.full_name]
    if not isinstance(value, str):
        raise Unfit(f"must be {form}; it is {shown(value)}")
    try:
        read(message, value)
    except (ValueError, OverflowError) as error:
        raise Unfit(f"must be {form}; it is {shown(value)}") from error


def text_writer(full_name: str) -> Callable[[Any], str]:
    """The function that writes messages of this type as text."""
    return _WRITERS[full_name]
