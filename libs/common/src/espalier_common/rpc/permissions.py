"""What each RPC requires of its caller, read from the option `espalier.common.v1.requires` of its descriptor."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor

from espalier.common.v1 import options_pb2

PUBLIC = "PUBLIC"
"""Anybody may call it, with or without a token."""
AUTHENTICATED = "AUTHENTICATED"
"""Anybody with a valid token may call it."""


@dataclass(frozen=True)
class Permission:
    """A permission and the RPCs (full names) that require it."""

    name: str
    rpcs: tuple[str, ...]


def requirement(method: MethodDescriptor) -> str:
    """PUBLIC, AUTHENTICATED or the permission; empty when the option is missing."""
    return str(method.GetOptions().Extensions[options_pb2.requires])


def stream_rule(method: MethodDescriptor) -> options_pb2.StreamRule:
    """How the RPC's stream is carried by Server-Sent Events; empty when the option is missing."""
    return method.GetOptions().Extensions[options_pb2.stream]


def all_permissions() -> list[Permission]:
    """Every permission that some RPC of the platform requires, sorted by name. Imports all generated packages."""
    rpcs: dict[str, list[str]] = {}
    for service in all_services():
        for method in service.methods:
            rpcs.setdefault(requirement(method), []).append(method.full_name)
    return [Permission(name, tuple(rpcs[name])) for name in sorted(rpcs) if name not in {"", PUBLIC, AUTHENTICATED}]


def all_services() -> Iterator[ServiceDescriptor]:
    """Descriptors of every RPC service of the platform."""
    for file in _all_files():
        yield from file.services_by_name.values()


def _all_files() -> Iterator[FileDescriptor]:
    package = importlib.import_module("espalier")
    for module in pkgutil.walk_packages(package.__path__, "espalier."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR
