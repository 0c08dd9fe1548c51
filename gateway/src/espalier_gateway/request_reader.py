"""An HTTP request's path, query and body into the RPC's request message."""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from espalier_common.errors import InvalidArgument
from espalier_gateway.contract import WHOLE_BODY, Binding
from espalier_gateway.errors import MalformedRequest, UnsupportedMedia
from espalier_gateway.json_reader import Findings, read_message
from espalier_gateway.json_values import Unfit, read_text, shown
from espalier_gateway.map_fields import is_map
from espalier_gateway.strict_json import parse_json
from espalier_gateway.well_known import is_text_type, read_text_type

MAX_QUERY_PARAMETERS = 1000


def read_request(binding: Binding, *, path: Mapping[str, str], query: bytes, body: bytes, content_type: str) -> Message:
    """The request message. Raises InvalidArgument with all violations, MalformedRequest or UnsupportedMedia."""
    message = binding.request_class()
    findings = Findings()
    given: Collection[str] = ()
    if binding.body:
        given = _read_body(binding, message, body, content_type=content_type, findings=findings)
    _read_query(binding, message, parse_query(query), findings)
    if binding.has_mask and not message.update_mask.paths:  # type: ignore[attr-defined]
        _imply_mask(binding, message, given)
    for name, value in path.items():
        _read_path_value(message, name, value, findings)
    if findings.items:
        first = findings.items[0]
        more = f" (and {len(findings.items) - 1} more)" if len(findings.items) > 1 else ""
        raise InvalidArgument(
            f"The request is not valid: {first.field} {first.description}{more}.", violations=findings.items
        )
    return message


def parse_query(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query string, in order. Raises MalformedRequest."""
    if not query:
        return []
    parts = query.split(b"&")
    if len(parts) > MAX_QUERY_PARAMETERS:
        raise MalformedRequest(f"The query has {len(parts)} parameters; {MAX_QUERY_PARAMETERS} are the most.")
    return [(_decode(name), _decode(value)) for name, _, value in (part.partition(b"=") for part in parts if part)]


def set_text(message: Message, name: str, text: str) -> None:
    """Sets the field at a dotted path from text; repeated fields get one more item. Raises Unfit."""
    target, field = _locate(message, name)
    if field.message_type is not None:
        read_text_type(target.add() if field.is_repeated else _present(target), text)
    elif field.is_repeated:
        getattr(target, field.name).append(read_text(field, text))
    else:
        setattr(target, field.name, read_text(field, text))


def _decode(text: bytes) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRequest("The query is not percent-encoded UTF-8.") from error


def _read_body(
    binding: Binding, message: Message, body: bytes, *, content_type: str, findings: Findings
) -> Collection[str]:
    """Fills the message; gives the names at the top of the body."""
    if not body:
        return ()
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMedia(f"The body must be application/json; it is {media_type[:100] or 'of no stated type'}.")
    value = parse_json(body)
    if binding.body == WHOLE_BODY:
        read_message(message, value, path="", findings=findings)
    else:
        # Paths in findings start at the request, as those of the services do: `run.name`.
        read_message(_present(getattr(message, binding.body)), value, path=binding.body, findings=findings)
    return value.keys() if isinstance(value, dict) else ()


def _imply_mask(binding: Binding, message: Any, given: Collection[str]) -> None:
    """Without a mask, what the body holds is what changes (AIP-134); what names the resource or its state is not."""
    resource = getattr(message, binding.body).DESCRIPTOR
    named = {name.removeprefix(f"{binding.body}.") for name in binding.template.names} | {"etag"}
    for field in resource.fields:
        if field.name not in named and (field.name in given or field.json_name in given):
            message.update_mask.paths.append(field.name)


def _read_query(binding: Binding, message: Message, pairs: list[tuple[str, str]], findings: Findings) -> None:
    seen: set[str] = set()
    for name, text in pairs:
        field = _query_field(binding, name)
        if field is None:
            findings.add(name[:200], _why_not(binding, name), "UNKNOWN_PARAMETER")
        elif name in seen and not field.is_repeated:
            findings.add(name, "is given twice", "DUPLICATE")
        else:
            seen.add(name)
            _set(message, name, text, findings)


def _query_field(binding: Binding, name: str) -> FieldDescriptor | None:
    """The field that a query parameter may fill: one with a value in text, reached through single messages."""
    head, *_ = name.split(".", 1)
    if head not in binding.query_fields or name in binding.template.names:
        return None
    field: FieldDescriptor | None = None
    current: Descriptor | None = binding.rpc.input_type
    for part in name.split("."):
        if current is None or (field is not None and field.is_repeated):
            return None
        field = current.fields_by_name.get(part)
        if field is None:
            return None
        current = field.message_type
    if current is not None and not is_text_type(current.full_name):
        return None
    return field if field is not None and not is_map(field) else None


def _why_not(binding: Binding, name: str) -> str:
    head = name.split(".", 1)[0]
    if name in binding.template.names:
        return "is given by the path"
    if binding.body in {WHOLE_BODY, head}:
        return "is no query parameter; fields of the request stand in the JSON body"
    known = ", ".join(sorted(binding.query_fields)[:40])
    return f"is unknown; known are {known}" if known else "is unknown; there are no query parameters here"


def _read_path_value(message: Message, name: str, value: str, findings: Findings) -> None:
    """The path decides; a body may repeat what it says, but not contradict it."""
    target, field = _locate(message, name)
    told = getattr(target, field.name)
    _set(message, name, value, findings)
    if told not in (field.default_value, getattr(target, field.name)):
        findings.add(name, f"is {shown(told)} in the body and {shown(value)} in the path", "CONFLICT")


def _set(message: Message, name: str, text: str, findings: Findings) -> None:
    try:
        set_text(message, name, text)
    except Unfit as error:
        findings.add(name, str(error), "TYPE")


def _locate(message: Message, name: str) -> tuple[Any, FieldDescriptor]:
    """The message that holds the field at a dotted path, and the field."""
    *parents, last = name.split(".")
    target: Any = message
    for parent in parents:
        target = getattr(target, parent)
    field: FieldDescriptor = target.DESCRIPTOR.fields_by_name[last]
    if field.message_type is not None:
        target = getattr(target, last)
    return target, field


def _present(message: Any) -> Any:
    message.SetInParent()
    return message
