"""What the RPCs say of themselves in the comments of the protos."""

from collections.abc import Iterator, Mapping
from importlib import resources

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

# Field numbers of descriptor.proto, of which a location's path is made.
_SERVICE_OF_FILE, _METHOD_OF_SERVICE = 6, 2


def rpc_comments() -> Mapping[str, str]:
    """The comment of each RPC, in one line, by its full name."""
    data = resources.files("espalier").joinpath("descriptors.binpb").read_bytes()
    return {name: text for file in FileDescriptorSet.FromString(data).file for name, text in _comments_of(file)}


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    texts = {tuple(at.path): " ".join(at.leading_comments.split()) for at in file.source_code_info.location}
    for number, service in enumerate(file.service):
        for index, method in enumerate(service.method):
            path = (_SERVICE_OF_FILE, number, _METHOD_OF_SERVICE, index)
            yield f"{file.package}.{service.name}.{method.name}", texts.get(path, "")
