"""OpenAPI operations of the RPCs."""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from espalier_common.rpc.permissions import AUTHENTICATED, PUBLIC
from espalier_gateway.contract import MASK, WHOLE_BODY, Binding, find_field
from espalier_gateway.map_fields import is_map
from espalier_gateway.openapi.problems import problem_responses
from espalier_gateway.openapi.schemas import Schema, Schemas, rule_of
from espalier_gateway.row_files import MEDIA_TYPES, PARAMETER
from espalier_gateway.well_known import is_text_type

SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": [], "csrf": []}]
IMPLIED = "The fields that stand in the body, when it is absent."
MAX_QUERY_DEPTH = 3


class Operations:
    """Makes the operation object of each binding."""

    def __init__(self, schemas: Schemas, comments: Mapping[str, str]) -> None:
        self._schemas = schemas
        self._comments = comments

    def operation(self, binding: Binding) -> Schema:
        """The operation: what it does, takes, answers and requires."""
        service = binding.rpc.containing_service
        text = self._comments.get(binding.rpc.full_name, "")
        operation: Schema = {
            # Never changes while the RPC keeps its name.
            "operationId": f"{service.name}_{binding.rpc.name}",
            "tags": [service.name],
            "summary": text.partition(". ")[0].rstrip("."),
            "description": text,
            "x-rpc": binding.rpc.full_name,
            "x-permission": binding.requires,
            "security": [] if binding.requires == PUBLIC else SIGNED_IN,
        }
        if parameters := [*self._path(binding), *self._query(binding), *_last_event_id(binding), *_format(binding)]:
            operation["parameters"] = parameters
        if binding.body:
            operation["requestBody"] = self._body(binding)
        operation["responses"] = {"200": self._success(binding), **problem_responses(_statuses(binding))}
        return operation

    def _path(self, binding: Binding) -> Iterator[Schema]:
        for name in binding.template.names:
            field = find_field(binding.rpc.input_type, name)
            if field is not None:
                yield self._parameter(name, field, place="path", required=True)

    def _query(self, binding: Binding) -> Iterator[Schema]:
        for field in binding.rpc.input_type.fields:
            if field.name in binding.query_fields:
                yield from self._query_parameters(field, field.name, binding=binding, depth=1)

    def _query_parameters(self, field: FieldDescriptor, name: str, *, binding: Binding, depth: int) -> Iterator[Schema]:
        message: Descriptor | None = field.message_type
        if name in binding.template.names or is_map(field):
            return
        if message is None or is_text_type(message.full_name):
            implied = name == MASK and binding.has_mask
            found = self._parameter(name, field, place="query", required=rule_of(field).required and not implied)
            yield {**found, "description": f"{found['description']} {IMPLIED}"} if implied else found
        elif not field.is_repeated and depth < MAX_QUERY_DEPTH:
            for inner in message.fields:
                yield from self._query_parameters(inner, f"{name}.{inner.name}", binding=binding, depth=depth + 1)

    def _parameter(self, name: str, field: FieldDescriptor, *, place: str, required: bool) -> Schema:
        schema = self._schemas.field(field, "sent")
        description = schema.pop("description", "")
        parameter: Schema = {"name": name, "in": place, "required": required, "schema": schema}
        return {**parameter, "description": description} if description else parameter

    def _body(self, binding: Binding) -> Schema:
        schema = self._schemas.body(binding)
        description = schema.pop("description", "")
        field = None if binding.body == WHOLE_BODY else binding.rpc.input_type.fields_by_name[binding.body]
        body: Schema = {
            "required": bool(field is not None and rule_of(field).required) or self._has_required(schema),
            "content": {"application/json": {"schema": schema}},
        }
        return {**body, "description": description} if description else body

    def _has_required(self, schema: Schema) -> bool:
        name = schema.get("$ref", "").rpartition("/")[2]
        return bool(self._schemas.components.get(name, {}).get("required"))

    def _success(self, binding: Binding) -> Schema:
        schema = self._schemas.message(binding.rpc.output_type, "answered")
        if not binding.streams:
            return {"description": "Done.", "content": {"application/json": {"schema": schema}}}
        number = f"the value of `{binding.event_id}`" if binding.event_id else "a number from 1"
        text = (
            f"Server-Sent Events. Each event's data is one JSON object of this schema, its id {number}. "
            "The event `end` closes the stream; the event `error` carries a problem. "
            "Comments are heartbeats."
        )
        content: Schema = {"text/event-stream": {"schema": schema}}
        if binding.exports:
            text += " As a file with one row a message: `?format=csv` or `?format=jsonl`, or the like in `Accept`."
            content |= {media_type: {"schema": {"type": "string"}} for media_type in MEDIA_TYPES.values()}
        return {"description": text, "content": content}


def _last_event_id(binding: Binding) -> Iterator[Schema]:
    if binding.streams and binding.resume:
        yield {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": f"Goes on after this event; the same as `{binding.resume}`. Browsers send it by themselves.",
        }


def _format(binding: Binding) -> Iterator[Schema]:
    if binding.exports:
        yield {
            "name": PARAMETER,
            "in": "query",
            "required": False,
            "schema": {"type": "string", "enum": list(MEDIA_TYPES)},
            "description": "Gives a file instead of events.",
        }


def _statuses(binding: Binding) -> list[int]:
    statuses = [400]
    if binding.requires != PUBLIC:
        statuses.append(401)
    if binding.requires not in {PUBLIC, AUTHENTICATED} or binding.body:
        statuses.append(403)
    if binding.template.names:
        statuses.append(404)
    if binding.method != "GET":
        statuses += [409, 412]
    if binding.body:
        statuses += [408, 413, 415]
    return [*statuses, 429, 500, 501, 503, 504, 507]


def tag_of(binding: Binding, comments: Mapping[str, str]) -> dict[str, Any]:
    """The tag of a binding's service."""
    service = binding.rpc.containing_service
    return {"name": service.name, "description": comments.get(service.full_name, "")}
