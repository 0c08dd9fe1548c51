"""A contract of these tests' own, with every rule in it: built in memory, so that it depends on no service."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from espalier.common.v1 import options_pb2

FIELD = descriptor_pb2.FieldDescriptorProto
FILE = "espalier/common_tests/v1/contract.proto"
PACKAGE = "espalier.common_tests.v1"


def _field(name: str, number: int, kind: Any, *, many: bool = False, of: str = "", **rule: Any) -> Any:
    label = FIELD.LABEL_REPEATED if many else FIELD.LABEL_OPTIONAL
    field = FIELD(name=name, number=number, type=kind, label=label, type_name=of or None)
    if rule:
        field.options.Extensions[options_pb2.field].CopyFrom(options_pb2.FieldRule(**rule))
    return field


def _message(name: str, *fields: Any, nested: list[Any] | None = None) -> Any:
    return descriptor_pb2.DescriptorProto(name=name, field=fields, nested_type=nested or [])


def _method(name: str, *, requires: str, stream: bool = False, resume: str = "") -> Any:
    method = descriptor_pb2.MethodDescriptorProto(
        name=name, input_type=f".{PACKAGE}.Ask", output_type=f".{PACKAGE}.Reply", server_streaming=stream
    )
    if requires:
        method.options.Extensions[options_pb2.requires] = requires
    if resume:
        method.options.Extensions[options_pb2.stream].resume = resume
    return method


def _map_of_doubles(name: str) -> Any:
    entry = _message(name, _field("key", 1, FIELD.TYPE_STRING), _field("value", 2, FIELD.TYPE_DOUBLE))
    entry.options.map_entry = True
    return entry


def _file() -> Any:
    ask = f".{PACKAGE}.Ask"
    fields = [
        _field("name", 1, FIELD.TYPE_STRING, required=True, min_length=2, max_length=8, pattern="[a-z]+"),
        _field("id", 2, FIELD.TYPE_STRING, uuid=True),
        _field("count", 3, FIELD.TYPE_INT32, minimum=1, maximum=10),
        _field("rate", 4, FIELD.TYPE_DOUBLE, minimum=0),
        _field("raw", 5, FIELD.TYPE_DOUBLE, allow_non_finite=True),
        _field("tags", 6, FIELD.TYPE_STRING, many=True, max_items=2, max_length=3),
        _field("children", 7, FIELD.TYPE_MESSAGE, many=True, of=ask),
        _field("weights", 8, FIELD.TYPE_MESSAGE, many=True, of=f"{ask}.WeightsEntry"),
        _field("color", 9, FIELD.TYPE_ENUM, of=f".{PACKAGE}.Color"),
        _field("at", 10, FIELD.TYPE_MESSAGE, of=".google.protobuf.Timestamp"),
        _field("page_size", 11, FIELD.TYPE_INT32),
        _field("page_token", 12, FIELD.TYPE_STRING),
    ]
    color = descriptor_pb2.EnumDescriptorProto(name="Color")
    color.value.add(name="COLOR_UNSPECIFIED", number=0)
    color.value.add(name="COLOR_RED", number=1)
    service = descriptor_pb2.ServiceDescriptorProto(
        name="TestService",
        method=[
            _method("Open", requires="PUBLIC"),
            _method("Known", requires="AUTHENTICATED"),
            _method("Guarded", requires="tests.things.read"),
            _method("Slow", requires="PUBLIC"),
            _method("Stream", requires="tests.things.watch", stream=True),
            _method("Watch", requires="PUBLIC", stream=True, resume="after"),
        ],
    )
    lax = descriptor_pb2.ServiceDescriptorProto(name="LaxService", method=[_method("Forgotten", requires="")])
    return descriptor_pb2.FileDescriptorProto(
        name=FILE,
        package=PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto", "espalier/common/v1/options.proto"],
        message_type=[
            _message("Ask", *fields, nested=[_map_of_doubles("WeightsEntry")]),
            _message("Batch", _field("asks", 1, FIELD.TYPE_MESSAGE, many=True, of=ask, min_items=2)),
            _message(
                "Update",
                _field("ask", 1, FIELD.TYPE_MESSAGE, of=ask, required=True),
                _field("update_mask", 2, FIELD.TYPE_STRING),
            ),
            _message("Reply", _field("text", 1, FIELD.TYPE_STRING), _field("number", 2, FIELD.TYPE_INT32)),
        ],
        enum_type=[color],
        service=[service, lax],
    )


@pytest.fixture(scope="session")
def contract() -> SimpleNamespace:
    """The messages; service and lax (descriptors); add (registers a servicer); call(channel, name) → a callable."""
    from google.protobuf import timestamp_pb2  # noqa: F401  (registers the file that ours depends on)

    pool = descriptor_pool.Default()
    pool.Add(_file())
    file = pool.FindFileByName(FILE)
    messages = {name: message_factory.GetMessageClass(kind) for name, kind in file.message_types_by_name.items()}
    ask, reply = messages["Ask"], messages["Reply"]
    service = file.services_by_name["TestService"]
    return SimpleNamespace(
        **messages,
        service=service,
        lax=file.services_by_name["LaxService"],
        add=_adder(service, ask, reply),
        call=lambda channel, name: _callable(channel, service.methods_by_name[name], ask, reply),
    )


def _adder(service: Any, ask: Any, reply: Any) -> Callable[[Any, Any], None]:
    def add(servicer: Any, server: Any) -> None:
        handlers = {}
        for method in service.methods:
            make = (
                grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
            )
            handlers[method.name] = make(
                getattr(servicer, method.name),
                request_deserializer=ask.FromString,
                response_serializer=reply.SerializeToString,
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    return add


def _callable(channel: Any, method: Any, ask: Any, reply: Any) -> Any:
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    return make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=ask.SerializeToString,
        response_deserializer=reply.FromString,
    )
