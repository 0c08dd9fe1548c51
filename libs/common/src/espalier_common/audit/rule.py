"""Which calls of an RPC are told, and what they are about; read from its descriptor."""

import re
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from espalier.common.v1 import options_pb2
from espalier_common.storable import storable

_PREFIX = re.compile(r"^/(api/v1/)?")
_VERB = re.compile(r":[a-zA-Z_]+$")
_VARIABLE = re.compile(r"\{([^}=]+)(=[^}]*)?\}")
MAX_TARGET = 300  # characters


@dataclass(frozen=True)
class AuditRule:
    """What is told of one RPC. `action` is its name; `tells` whether all its calls are, or refusals alone."""

    action: str
    tells: bool
    path: str
    is_for_users: bool
    """Whether users call it; others are called by services in consequence of a call that is told itself."""

    def target(self, request: Message, answer: Message | None) -> str:
        """What the call is about, such as `users/<id>`: its path without the verb, and the id of what it made."""
        if not self.path:
            return ""
        filled = _VARIABLE.sub(lambda match: _text_at(request, match[1]), self.path)
        if "{" not in self.path and (made := _made(answer)):
            filled = f"{filled}/{made}"
        return storable(filled)[:MAX_TARGET]


def rule_of(method: MethodDescriptor) -> AuditRule:
    """The rule of an RPC, by its option `audit` and its HTTP methods."""
    options = method.GetOptions()
    option = options.Extensions[options_pb2.audit]
    rules = _http_rules(options)
    changes = any(rule.WhichOneof("pattern") != "get" for rule in rules)
    tells = option == options_pb2.AUDIT_RULE_ALWAYS or (changes and option != options_pb2.AUDIT_RULE_REFUSALS)
    path = str(getattr(rules[0], rules[0].WhichOneof("pattern") or "get")) if rules else ""
    return AuditRule(
        f"{method.containing_service.full_name}/{method.name}",
        tells,
        _VERB.sub("", _PREFIX.sub("", path)),
        is_for_users=bool(path) or option == options_pb2.AUDIT_RULE_REFUSALS,
    )


def _http_rules(options: Any) -> list[Any]:
    if not options.HasExtension(annotations_pb2.http):
        return []
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    return [rule, *rule.additional_bindings]


def _text_at(message: Any, path: str) -> str:
    for name in path.split("."):
        message = getattr(message, name, "")
    return str(message)[:100]


def _made(answer: Any) -> str:
    """The id of what the answer shows, or its name; of the one thing in it when it wraps one."""
    if answer is None:
        return ""
    fields = answer.DESCRIPTOR.fields_by_name
    for name in ("id", "name"):
        if name in fields:
            return str(getattr(answer, name))
    inner = [field for field, _ in answer.ListFields() if field.message_type is not None and not field.is_repeated]
    return str(getattr(getattr(answer, inner[0].name), "id", "")) if len(inner) == 1 else ""
