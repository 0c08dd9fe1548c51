"""A model server that answers something else than 200: what the user is told of it."""

from typing import Any

import orjson

from espalier_chat.errors import CompletionRefused, ModelBusy, UpstreamError
from espalier_common.errors import EspalierError, FieldViolation

BUSY_SECONDS = 5.0
MAX_BUSY_SECONDS = 600.0
MAX_CODE_LENGTH = 64

_REFUSALS = {
    400: "The model server refused the request; the conversation may be longer than the model can read.",
    401: "The model server refused the platform's credentials.",
    403: "The model server refused the platform's credentials.",
    404: "The model server does not know the model; look at its deployment.",
    413: "The conversation is longer than the model server takes; open a new session.",
    422: "The model server refused the request; the conversation may be longer than the model can read.",
    429: "The model server is busy; wait a moment, then send the message again.",
}
_TOO_LONG = "The conversation is longer than the model can read; open a new session, or say less."
# What is the request's own fault; whatever else happens there says nothing to who asked.
_OF_THE_REQUEST = frozenset({400, 413, 422})


def refusal_in_session(status: int, body: bytes) -> UpstreamError:
    """A sentence by the status, and by the one error code that asks the user for something else."""
    if _error_in(body).get("code") == "context_length_exceeded":
        return UpstreamError(_TOO_LONG)
    return UpstreamError(_REFUSALS.get(status, f"The model server failed with HTTP {status}."))


def refusal_for_caller(status: int, body: bytes, retry_after: str) -> EspalierError | UpstreamError:
    """The same for who wrote the request himself: what is wrong with it, the model server says best."""
    if status in {429, 503}:
        seconds = min(float(retry_after), MAX_BUSY_SECONDS) if retry_after.isdecimal() else BUSY_SECONDS
        return ModelBusy("The model server is busy; try again in a moment.", retry_after=seconds)
    if status not in _OF_THE_REQUEST:
        return refusal_in_session(status, b"")
    error = _error_in(body)
    message, code, param = (_text(error, name) for name in ("message", "code", "param"))
    violations = [FieldViolation(param, message)] if param else []
    return CompletionRefused(message or _REFUSALS[400], violations=violations, metadata={"code": code} if code else {})


def _error_in(body: bytes) -> dict[str, Any]:
    """OpenAI's error object; some servers send it bare."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _text(error: dict[str, Any], name: str) -> str:
    value = error.get(name)
    return value[: 1000 if name == "message" else MAX_CODE_LENGTH] if isinstance(value, str) else ""
