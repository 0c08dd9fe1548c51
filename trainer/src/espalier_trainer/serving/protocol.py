"""What a chat request may hold. Unknown fields are ignored, as OpenAI clients send many; wrong values are told."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from espalier_data import Conversation, Message, Role
from espalier_trainer.serving.errors import ApiError

MAX_BODY_BYTES = 4 << 20
MAX_STOPS = 4
_MAX_TEXT = 1 << 20
_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}


class ChatMessage(BaseModel):
    """One message; content is text, or parts that are all text."""

    model_config = ConfigDict(strict=True)

    role: str
    content: str

    @field_validator("role")
    @classmethod
    def _known(cls, role: str) -> str:
        if role not in _ROLES:
            raise ValueError(f"the role must be one of {', '.join(_ROLES)}, not {role[:40]!r}")
        return role

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return _clean(content)
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError("this model reads text alone: every part must be {'type': 'text', 'text': …}")
        return _clean("".join(part["text"] for part in content))


class StreamOptions(BaseModel):
    """How to stream."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions; null means the default."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: list[str] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, stop: Any) -> list[str]:
        stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(one, str) and one for one in stops):
            raise ValueError("must be a text or a list of texts, none of them empty")
        if len(stops) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} texts can end an answer")
        return [_clean(one) for one in stops]

    @field_validator("n")
    @classmethod
    def _one(cls, n: int | None) -> int | None:
        if n not in (None, 1):
            raise ValueError("this server gives one answer a request; ask again for another")
        return n

    @property
    def wants_stream(self) -> bool:
        """Token by token, rather than all at once."""
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        """Token counts at the end of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def token_limit(self) -> int | None:
        """Most tokens of the answer; None: as many as fit."""
        return self.max_completion_tokens or self.max_tokens

    def conversation(self) -> Conversation:
        """The messages as espalier_data renders them."""
        return Conversation(tuple(Message(_ROLES[message.role], message.content) for message in self.messages))


def parse_chat_request(body: bytes) -> ChatRequest:
    """The request of a body. Raises ApiError that names every field that is wrong."""
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"The body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError("The body must be a JSON object with `messages`.", code="invalid_json")
    try:
        return ChatRequest.model_validate(content)
    except ValidationError as error:
        raise _told(error) from error


def _told(error: ValidationError) -> ApiError:
    places = [".".join(str(part) for part in found["loc"]) for found in error.errors()]
    reasons = [found["msg"].removeprefix("Value error, ") for found in error.errors()]
    message = "; ".join(f"{place}: {reason}" for place, reason in zip(places, reasons, strict=True))
    return ApiError(message[:2000], code="invalid_value", param=places[0])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _clean(text: Any) -> Any:
    """The text, once it is known that a tokenizer can read it."""
    if not isinstance(text, str):
        return text
    if len(text) > _MAX_TEXT:
        raise ValueError(f"is {len(text)} characters long; at most {_MAX_TEXT} are read")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair at character {error.start}") from error
    return text
