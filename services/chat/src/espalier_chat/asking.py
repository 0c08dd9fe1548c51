"""A chat completion as a caller of the OpenAI API asks for it.

Read is what chat itself needs to know; everything else goes to the model server as it came, whether known or not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from espalier_chat.errors import InvalidCompletion
from espalier_chat.service import least_use
from espalier_common.errors import FieldViolation

MAX_ANSWERS = 128
MAX_TOKENS = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A completion that somebody asks for; `wants_use` is whether a stream is to end with what it used."""

    model: str
    streams: bool
    wants_use: bool
    characters: int
    """Of all messages: what the prompt's tokens are estimated by."""
    most_tokens: int
    """Of the answers together; 0 when no bound is set."""
    fields: Mapping[str, Any]

    @property
    def least_use(self) -> dict[str, float]:
        """What answering this uses at least, by kind."""
        return least_use(self.characters, self.most_tokens)

    def body_for(self, model: str) -> bytes:
        """The request for the model server that knows the model by this name. Of a stream the use is always asked."""
        body = {**self.fields, "model": model}
        if self.streams:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return orjson.dumps(body)


def read_asked(content: bytes) -> Asked:
    """The request in a body. Raises InvalidCompletion that names the field."""
    fields = _object_in(content)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "is required: the name of a deployed model, as GET /v1/models lists them")
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list of at least one message")
    streams = _flag(fields, "stream")
    options = fields.get("stream_options")
    if options is not None and not (streams and isinstance(options, dict)):
        raise _wrong("stream_options", "must be an object, and stands beside `stream: true` alone")
    bounds = [_count(fields, name, most=MAX_TOKENS) for name in ("max_completion_tokens", "max_tokens")]
    return Asked(
        model=model,
        streams=streams,
        wants_use=_flag(options or {}, "include_usage", "stream_options."),
        characters=sum(map(_characters, messages)),
        most_tokens=(bounds[0] or bounds[1]) * (_count(fields, "n", most=MAX_ANSWERS) or 1),
        fields=fields,
    )


def _object_in(content: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(content)
        orjson.dumps(fields)  # what is nested too deep to be written is told before anything begins
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise InvalidCompletion(f"The body is no JSON that can be read: {error}.") from error
    if not isinstance(fields, dict):
        raise InvalidCompletion("The body must be a JSON object with `model` and `messages`.")
    return fields


def _flag(fields: Mapping[str, Any], name: str, prefix: str = "") -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(prefix + name, "must be true or false")
    return bool(value)


def _count(fields: Mapping[str, Any], name: str, *, most: int) -> int:
    """A whole number from 1 on; 0 when it is not set."""
    value = fields.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _wrong(name, f"must be a whole number from 1 to {most}")
    return value


def _characters(message: object) -> int:
    """The length of a message's text; whether it is a message at all, the model server says."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else []
    return sum(len(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _wrong(name: str, description: str) -> InvalidCompletion:
    return InvalidCompletion(f"{name} {description}.", violations=[FieldViolation(name, description)])
