"""Requests that pass validation, filled from the rules on their fields, and the ids that they carry."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from recipes import pretraining
from wire import new_request

from espalier.common.v1 import options_pb2

BASE_RUN = "run.spec.base_model.run_id"


def rule_of(field: FieldDescriptor) -> options_pb2.FieldRule:
    """The bounds of a field."""
    return field.GetOptions().Extensions[options_pb2.field]


def ids_in(rpc: MethodDescriptor) -> list[str]:
    """Paths of all fields of a request that take the id of something."""
    rule = rpc.GetOptions().Extensions[annotations_pb2.http]
    path = str(rule.get or rule.post or rule.patch or rule.delete or rule.put)
    return [name for name, field in _texts(rpc.input_type, "", ()) if _is_id(name, field, path)]


def _texts(message: Descriptor, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, FieldDescriptor]]:
    for field in message.fields:
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                continue
            if field.message_type.full_name not in above and field.message_type.file.package.startswith("espalier"):
                inner = (*above, field.message_type.full_name)
                yield from _texts(field.message_type, f"{prefix}{field.name}.", inner)
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield f"{prefix}{field.name}", field


def _is_id(name: str, field: FieldDescriptor, path: str) -> bool:
    if f"{{{name}}}" in path:
        return field.name not in {"name", "provider"}
    # What stands in a resource without a rule is told by the server and never read.
    ruled = field.GetOptions().HasExtension(options_pb2.field) or "." not in name
    return rule_of(field).uuid or (ruled and field.name.endswith(("_id", "_ids")))


def request_of(rpc: MethodDescriptor, id_of: Callable[[str], str], *, about: frozenset[str] = frozenset()) -> Message:
    """A valid request; `id_of` gives the id for the path of a field, and those in `about` are filled by all means."""
    request = new_request(rpc)
    _fill(request, "", id_of)
    for name, value in _special(rpc.name, id_of, about).items():
        json_format.ParseDict({name: value}, request)
    return request


def _fill(message: Any, prefix: str, id_of: Callable[[str], str]) -> None:
    for field in message.DESCRIPTOR.fields:
        rule, path = rule_of(field), f"{prefix}{field.name}"
        if not (rule.required or rule.min_items) and not (rule.uuid and "." not in path):
            continue
        if field.message_type is not None:
            target = getattr(message, field.name)
            _fill(target.add() if field.is_repeated else target, f"{path}.", id_of)
            if not field.is_repeated:
                target.SetInParent()
        elif field.type == FieldDescriptor.TYPE_STRING:
            text = id_of(path) if rule.uuid or field.name.endswith("_id") else "x" * max(rule.min_length, 2)
            if field.is_repeated:
                getattr(message, field.name).append(text)
            else:
                setattr(message, field.name, text)
        elif field.type == FieldDescriptor.TYPE_ENUM and not field.is_repeated:
            setattr(message, field.name, 1)


def _special(name: str, id_of: Callable[[str], str], about: frozenset[str]) -> Mapping[str, Any]:
    """What the rules do not tell: a training that can be planned, a file of a dataset, a field mask."""
    if name in {"CreateRun", "PlanRun"}:
        spec = pretraining(id_of("run.spec.dataset_version_ids"), max_steps=1)
        if BASE_RUN in about:
            spec["base_model"] = {"run_id": id_of(BASE_RUN)}
        return {"run": {"name": "probe", "spec": spec}}
    if name == "CreateDatasetVersion":
        return {"version": {"files": [{"split": "train", "upload_id": id_of("version.files.upload_id")}]}}
    if name == "CreateEvaluation":
        return {"evaluation": {"name": "probe", "items": [{"reference": "a"}]}}
    return {}


def texts_in(rpc: MethodDescriptor) -> list[str]:
    """Paths of all texts of a request."""
    return [name for name, _ in _texts(rpc.input_type, "", ())]
