"""The comments of the .proto files, by full name of what they stand at."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

# Field numbers of descriptor.proto, of which a location's path is made.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # of a file
_FIELD, _NESTED, _NESTED_ENUM = 2, 3, 4  # of a message
_METHOD, _VALUE = 2, 2  # of a service, of an enum

Named = tuple[tuple[int, ...], str, Any]


def read_comments() -> Mapping[str, str]:
    """Leading comments of all files of the contract, from the descriptor set that is generated with the code."""
    data = resources.files("espalier").joinpath("descriptors.binpb").read_bytes()
    found: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(data).file:
        found.update(_comments_of(file))
    return found


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    texts = {
        tuple(location.path): location.leading_comments.strip()
        for location in file.source_code_info.location
        if location.leading_comments.strip()
    }
    for path, name, _ in _everything(file):
        if text := texts.get(path):
            yield name, "\n".join(line.strip() for line in text.splitlines())


def _everything(file: FileDescriptorProto) -> Iterator[Named]:
    package = file.package
    for each in _named((), _MESSAGE, file.message_type, package):
        yield from _message(*each)
    for each in _named((), _ENUM, file.enum_type, package):
        yield from _enum(*each)
    for path, name, service in _named((), _SERVICE, file.service, package):
        yield path, name, service
        yield from _named(path, _METHOD, service.method, name)


def _message(path: tuple[int, ...], name: str, message: Any) -> Iterator[Named]:
    yield path, name, message
    yield from _named(path, _FIELD, message.field, name)
    for each in _named(path, _NESTED_ENUM, message.enum_type, name):
        yield from _enum(*each)
    for each in _named(path, _NESTED, message.nested_type, name):
        yield from _message(*each)


def _enum(path: tuple[int, ...], name: str, enum: Any) -> Iterator[Named]:
    yield path, name, enum
    yield from _named(path, _VALUE, enum.value, name)


def _named(path: tuple[int, ...], kind: int, items: Sequence[Any], prefix: str) -> Iterator[Named]:
    for index, item in enumerate(items):
        yield (*path, kind, index), f"{prefix}.{item.name}", item
