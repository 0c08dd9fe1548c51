"""JSON Schemas of the messages.

A message has one schema for what a client sends (`…Input`, unless its name ends in Request) and one for
what it gets: only sent fields may be missing or refused, only answers have all their plain fields.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from espalier.common.v1 import options_pb2
from espalier_gateway.contract import WHOLE_BODY, Binding
from espalier_gateway.map_fields import is_map, value_of

Schema = dict[str, Any]
Direction = Literal["sent", "answered"]

_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["1.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "description": "Field names with commas between them."},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
}
_NUMBERS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    # 64-bit integers are strings in JSON: a JavaScript number cannot hold them.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "pattern": "^-?[0-9]+$"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "pattern": "^[0-9]+$"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
}
_NON_FINITE: Schema = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}


class Schemas:
    """Collects the schemas of all messages that are referred to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._components: dict[str, Schema] = {}

    @property
    def components(self) -> dict[str, Schema]:
        """All schemas by name, sorted, so that the document is the same each time."""
        return dict(sorted(self._components.items()))

    def message(self, descriptor: Descriptor, direction: Direction) -> Schema:
        """A reference to a message's schema, or the schema itself for well-known types."""
        if descriptor.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[descriptor.full_name])
        if descriptor.full_name.startswith("google.protobuf.") and "value" in descriptor.fields_by_name:
            return self.field(descriptor.fields_by_name["value"], direction)
        name = _name_of(descriptor, direction)
        if name not in self._components:
            self._components[name] = {}  # holds the place, since a message may contain itself
            self._components[name] = self._object(descriptor, direction, left_out=())
        return _reference(name)

    def body(self, binding: Binding) -> Schema:
        """Schema of the JSON body of an RPC."""
        message = binding.rpc.input_type
        if binding.body != WHOLE_BODY:
            return self.field(message.fields_by_name[binding.body], "sent")
        name = _name_of(message, "sent")
        self._components[name] = self._object(message, "sent", left_out=binding.template.names)
        return _reference(name)

    def field(self, field: FieldDescriptor, direction: Direction) -> Schema:
        """Schema of a field with its comment and bounds."""
        rule = rule_of(field)
        if direction == "answered":
            # Bounds are for those who send; what was stored under older ones is answered all the same.
            rule = options_pb2.FieldRule(allow_non_finite=rule.allow_non_finite)
        schema = self._container(field, rule, direction)
        if comment := self._comments.get(field.full_name):
            schema = {**schema, "description": comment}
        oneof = field.containing_oneof
        # A single one is how protobuf stores an optional field.
        return {**schema, "x-oneof": oneof.name} if oneof is not None and len(oneof.fields) > 1 else schema

    def _object(self, descriptor: Descriptor, direction: Direction, *, left_out: Collection[str]) -> Schema:
        fields = [field for field in descriptor.fields if field.name not in left_out]
        schema: Schema = {"type": "object", "properties": {each.name: self.field(each, direction) for each in fields}}
        if comment := self._comments.get(descriptor.full_name):
            schema["description"] = comment
        is_required = _always_there if direction == "answered" else _must_be_sent
        if required := [each.name for each in fields if is_required(each)]:
            schema["required"] = required
        if direction == "sent":
            schema["additionalProperties"] = False
        return schema

    def _container(self, field: FieldDescriptor, rule: options_pb2.FieldRule, direction: Direction) -> Schema:
        if is_map(field):
            return {"type": "object", "additionalProperties": self._single(value_of(field), rule, direction)}
        single = self._single(field, rule, direction)
        if not field.is_repeated:
            return single
        bounds = {"minItems": rule.min_items, "maxItems": rule.max_items}
        return {"type": "array", "items": single, **{name: bound for name, bound in bounds.items() if bound}}

    def _single(self, field: FieldDescriptor, rule: options_pb2.FieldRule, direction: Direction) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type, direction)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            return {"type": "string", **_text_bounds(rule, filled=field.is_repeated)}
        return _number(field, rule)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        name = enum.full_name.removeprefix("espalier.")
        if name not in self._components:
            lines = [
                f"- `{value.name}`: {self._comments.get(f'{enum.full_name}.{value.name}', '')}" for value in enum.values
            ]
            text = "\n".join([self._comments.get(enum.full_name, ""), "", *lines]).strip()
            values = [value.name for value in enum.values]
            self._components[name] = {"type": "string", "enum": values, "description": text}
        return _reference(name)


def rule_of(field: FieldDescriptor) -> options_pb2.FieldRule:
    """The bounds of a field."""
    return field.GetOptions().Extensions[options_pb2.field]


def _name_of(descriptor: Descriptor, direction: Direction) -> str:
    name = descriptor.full_name.removeprefix("espalier.")
    return f"{name}Input" if direction == "sent" and not name.endswith("Request") else name


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _always_there(field: FieldDescriptor) -> bool:
    return not field.has_presence


def _must_be_sent(field: FieldDescriptor) -> bool:
    return rule_of(field).required


def _text_bounds(rule: options_pb2.FieldRule, *, filled: bool) -> Schema:
    """Bounds hold for text that is there: an empty one is as good as none, unless the field is required."""
    bounds: Schema = {}
    if rule.max_length:
        bounds["maxLength"] = rule.max_length
    if rule.required:
        bounds["minLength"] = max(1, rule.min_length)
    optional = not rule.required and not filled
    if rule.uuid:
        bounds.update({"anyOf": [{"format": "uuid"}, {"const": ""}]} if optional else {"format": "uuid"})
    if rule.pattern:
        bounds["pattern"] = f"^(?:{rule.pattern})?$" if optional else f"^(?:{rule.pattern})$"
    return bounds


def _number(field: FieldDescriptor, rule: options_pb2.FieldRule) -> Schema:
    schema = dict(_NUMBERS[field.cpp_type])
    if schema["type"] in {"integer", "number"}:
        for name in ("minimum", "maximum"):
            if rule.HasField(name):
                bound = getattr(rule, name)
                schema[name] = int(bound) if bound.is_integer() else bound
    return {"anyOf": [schema, dict(_NON_FINITE)]} if rule.allow_non_finite else schema
