"""The field `etag` of a resource as HTTP has it: told in ETag, asked back in If-Match."""

import re
from typing import Any

from google.protobuf.message import Message

from espalier_gateway.contract import WHOLE_BODY, Binding
from espalier_gateway.errors import NoSuchState

FIELD = "etag"
_TAG = re.compile(r'"?([\x21\x23-\x7e]{1,64})"?')


def bind_to_state(binding: Binding, message: Message, if_match: str) -> None:
    """Lets a change through only in the state that If-Match names. Raises NoSuchState where it can name none."""
    wanted = if_match.strip()
    if wanted in {"", "*"} or binding.method == "GET":
        return
    resource: Any = message if binding.body in {"", WHOLE_BODY} else getattr(message, binding.body)
    tag = _TAG.fullmatch(wanted)
    if FIELD not in resource.DESCRIPTOR.fields_by_name or tag is None:
        raise NoSuchState(
            "If-Match names no state of what this changes; send the ETag of its last answer, or leave it."
        )
    resource.etag = tag[1]


def tag_of(reply: Any) -> str:
    """The value of the header ETag for an answer; empty when it has no state."""
    tag = reply.etag if FIELD in reply.DESCRIPTOR.fields_by_name else ""
    return f'"{tag}"' if tag else ""
