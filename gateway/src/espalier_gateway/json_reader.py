"""A JSON body into a request message. All that is wrong is found in one pass, each finding with its field's path."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from espalier_common.errors import FieldViolation
from espalier_gateway.json_values import Unfit, read_scalar, read_text, shown
from espalier_gateway.map_fields import is_map, key_of, value_of
from espalier_gateway.well_known import is_text_type, read_text_type

MAX_VIOLATIONS = 100

# JSON of any shape, and single values in a box: protobuf's own reader knows them.
FREE_FORM = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Struct", "Value", "ListValue", "BoolValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value"),
        *("FloatValue", "DoubleValue", "StringValue", "BytesValue"),
    )
)


class Findings:
    """Violations collected while a request is read; beyond 100 nobody reads them."""

    def __init__(self) -> None:
        self.items: list[FieldViolation] = []

    def add(self, path: str, description: str, reason: str = "INVALID") -> None:
        if len(self.items) < MAX_VIOLATIONS:
            self.items.append(FieldViolation(path, description, reason))


def read_message(message: Message, value: Any, *, path: str, findings: Findings) -> None:
    """Fills the message from a JSON value; `path` names the message in findings, empty for the whole body."""
    full_name = message.DESCRIPTOR.full_name
    if is_text_type(full_name):
        _guarded(lambda: read_text_type(message, value), path=path, findings=findings)
    elif full_name in FREE_FORM:
        _guarded(lambda: _read_free_form(message, value), path=path, findings=findings)
    elif not isinstance(value, dict):
        findings.add(path or "body", f"must be an object; it is {shown(value)}", "TYPE")
    else:
        _read_object(message, value, path=path, findings=findings)


def _read_object(message: Message, value: dict[str, Any], *, path: str, findings: Findings) -> None:
    names = _names_of(message.DESCRIPTOR)
    seen: dict[str, str] = {}
    for name, item in value.items():
        field = names.get(name)
        here = f"{path}.{name[:200]}" if path else name[:200]
        if field is None:
            findings.add(here, _unknown(names), "UNKNOWN_FIELD")
            continue
        group = field.containing_oneof.name if field.containing_oneof else field.name
        if group in seen:
            findings.add(here, f"cannot be given together with {seen[group]}", "CONFLICT")
        elif item is not None:
            seen[group] = name
            _read_field(message, field, item, path=here, findings=findings)


def _read_field(message: Message, field: FieldDescriptor, value: Any, *, path: str, findings: Findings) -> None:
    if is_map(field):
        _read_map(message, field, value, path=path, findings=findings)
    elif field.is_repeated:
        _read_list(message, field, value, path=path, findings=findings)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        read_message(inner, value, path=path, findings=findings)
    else:
        _guarded(lambda: setattr(message, field.name, read_scalar(field, value)), path=path, findings=findings)


def _read_list(message: Message, field: FieldDescriptor, value: Any, *, path: str, findings: Findings) -> None:
    if not isinstance(value, list):
        findings.add(path, f"must be a list; it is {shown(value)}", "TYPE")
        return
    target = getattr(message, field.name)
    for index, item in enumerate(value):
        if len(findings.items) >= MAX_VIOLATIONS:
            return
        here = f"{path}[{index}]"
        if field.message_type is not None:
            read_message(target.add(), item, path=here, findings=findings)
        else:
            _append(target, field, item, path=here, findings=findings)


def _append(target: Any, field: FieldDescriptor, item: Any, *, path: str, findings: Findings) -> None:
    _guarded(lambda: target.append(read_scalar(field, item)), path=path, findings=findings)


def _read_map(message: Message, field: FieldDescriptor, value: Any, *, path: str, findings: Findings) -> None:
    if not isinstance(value, dict):
        findings.add(path, f"must be an object; it is {shown(value)}", "TYPE")
        return
    key_field = key_of(field)
    for name, item in value.items():
        entry = f"{path}[{name[:100]!r}]"
        _guarded(
            lambda name=name, item=item, entry=entry: _put(
                getattr(message, field.name), field, read_text(key_field, name), item, path=entry, findings=findings
            ),
            path=entry,
            findings=findings,
        )


def _put(target: Any, field: FieldDescriptor, key: Any, item: Any, *, path: str, findings: Findings) -> None:
    value_field = value_of(field)
    if value_field.message_type is not None:
        read_message(target[key], item, path=path, findings=findings)
    else:
        target[key] = read_scalar(value_field, item)


def _guarded(read: Any, *, path: str, findings: Findings) -> None:
    try:
        read()
    except Unfit as error:
        findings.add(path or "body", str(error), "TYPE")


def _read_free_form(message: Message, value: Any) -> None:
    try:
        json_format.ParseDict(value, message)
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise Unfit(f"has a wrong form: {error}"[:300]) from error


def _names_of(descriptor: Any) -> dict[str, FieldDescriptor]:
    """Fields by proto name and, as protobuf's JSON allows, by lowerCamelCase name."""
    return {name: field for field in descriptor.fields for name in (field.json_name, field.name)}


def _unknown(names: Mapping[str, FieldDescriptor]) -> str:
    known = sorted({field.name for field in names.values()})
    if not known:
        return "is unknown; no field can be given here"
    return f"is unknown; known are {', '.join(known[:40])}"
