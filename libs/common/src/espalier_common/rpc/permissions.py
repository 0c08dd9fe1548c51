"""What each RPC requires of its caller, read from the option `espalier.common.v1.requires` of its descriptor."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


def is_before_second_factor(method: MethodDescriptor) -> bool:
    """Whether a session may call it that has to enrol a second factor first."""
    return bool(method.GetOptions().Extensions[options_pb2.before_second_factor])


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
    # Not pkgutil: it does not look into namespace packages, and the generated ones have no __init__.py.
    package = importlib.import_module("espalier")
    for root in map(Path, package.__path__):
        for path in sorted(root.rglob("*_pb2.py")):
            module = ".".join(("espalier", *path.relative_to(root).with_suffix("").parts))
            yield importlib.import_module(module).DESCRIPTOR
