"""What the gateway knows of the platform's RPCs, all of it read from the generated descriptors."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from espalier_common.rpc.permissions import all_services, requirement, stream_rule
from espalier_gateway.path_template import PathTemplate

WHOLE_BODY = "*"
MASK = "update_mask"


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One RPC under one HTTP method and path."""

    rpc: MethodDescriptor
    method: str
    template: PathTemplate
    body: str
    """Field that the JSON body fills; `*` for the whole request, empty for none."""
    requires: str
    event_id: str
    resume: str
    request_class: Callable[[], Message]
    response_class: type[Message]

    @cached_property
    def name(self) -> str:
        """Full name of the RPC."""
        return self.rpc.full_name

    @cached_property
    def service(self) -> str:
        """Name of the service that answers, as ESPALIER_SERVICES has it."""
        return service_name(self.rpc.containing_service)

    @cached_property
    def grpc_path(self) -> str:
        """The RPC on the wire."""
        return f"/{self.rpc.containing_service.full_name}/{self.rpc.name}"

    @cached_property
    def streams(self) -> bool:
        """Whether the answer is a stream of messages."""
        return self.rpc.server_streaming

    @property
    def exports(self) -> bool:
        """Whether the stream may be had as a file too: it is read by GET and ends by itself."""
        return self.streams and self.method == "GET" and not self.resume

    @property
    def has_mask(self) -> bool:
        """Whether the call changes some fields of a resource, which is its body, and a mask names them."""
        return self.method == "PATCH" and self.body not in {"", WHOLE_BODY} and MASK in self.query_fields

    @cached_property
    def query_fields(self) -> frozenset[str]:
        """Top-level request fields that query parameters may fill: all that neither path nor body fills."""
        if self.body == WHOLE_BODY:
            return frozenset()
        taken = {self.body, *(name for name in self.template.names if "." not in name)}
        return frozenset(field.name for field in self.rpc.input_type.fields) - taken


def service_name(service: ServiceDescriptor) -> str:
    """`training-orchestrator` of `espalier.training_orchestrator.v1.RunService`."""
    return service.file.package.split(".")[1].replace("_", "-")


def read_contract(services: Iterable[ServiceDescriptor] | None = None) -> tuple[Binding, ...]:
    """Every RPC that has a google.api.http option, in the order of the protos; by default of the whole platform."""
    found = all_services() if services is None else services
    return tuple(binding for service in found for method in service.methods for binding in _bindings_of(method))


def bind(method: MethodDescriptor, *, verb: str, path: str, body: str = "") -> Binding:
    """An RPC under this method and path, which for routes that the gateway answers by hand are the route's."""
    stream = stream_rule(method)
    return Binding(
        rpc=method,
        method=verb,
        template=PathTemplate(path),
        body=body,
        requires=requirement(method),
        event_id=stream.event_id,
        resume=stream.resume,
        request_class=GetMessageClass(method.input_type),
        response_class=GetMessageClass(method.output_type),
    )


def find_field(message: Descriptor, path: str) -> FieldDescriptor | None:
    """The field at a dotted path such as `user.id`; None when there is none."""
    field: FieldDescriptor | None = None
    current: Descriptor | None = message
    for name in path.split("."):
        field = current.fields_by_name.get(name) if current is not None else None
        if field is None:
            return None
        current = field.message_type
    return field


def _bindings_of(method: MethodDescriptor) -> Iterator[Binding]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        yield _binding(method, each)


def _binding(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Binding:
    verb = rule.WhichOneof("pattern")
    if verb is None or verb == "custom" or rule.response_body:
        raise ValueError(f"{method.full_name}: a custom HTTP method or a response_body is not supported")
    binding = bind(method, verb=verb.upper(), path=getattr(rule, verb), body=rule.body)
    _check_fields(binding)
    return binding


def _check_fields(binding: Binding) -> None:
    """A template that names a field that does not exist is a defect of the contract and stops the start."""
    inputs: list[Any] = [*binding.template.names, binding.resume]
    inputs += [] if binding.body in {"", WHOLE_BODY} else [binding.body]
    wrong = [name for name in inputs if name and find_field(binding.rpc.input_type, name) is None]
    wrong += [name for name in binding.template.names if not _is_single_value(binding.rpc.input_type, name)]
    if binding.event_id and find_field(binding.rpc.output_type, binding.event_id) is None:
        wrong.append(binding.event_id)
    if wrong:
        raise ValueError(f"{binding.rpc.full_name}: its options name fields that do not fit: {', '.join(wrong)}")


def _is_single_value(message: Descriptor, path: str) -> bool:
    field = find_field(message, path)
    return field is not None and field.message_type is None and not field.is_repeated
