"""OpenAPI responses for errors: RFC 9457 problem JSON, one component per status."""

from collections.abc import Iterable
from typing import Any

from espalier_gateway.problems import MEDIA_TYPE, phrase_of

STATUSES = (400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 415, 416, 429, 500, 501, 503, 504, 507)
_WITH_RETRY = {429, 503}

_VIOLATION: dict[str, Any] = {
    "type": "object",
    "required": ["field", "description", "reason"],
    "properties": {
        "field": {"type": "string", "description": "Path of the field, such as run.name."},
        "description": {"type": "string", "description": "What is wrong, to be read after the field's name."},
        "reason": {"type": "string", "description": "Stable UPPER_SNAKE reason."},
    },
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "reason", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "URN of the kind of problem."},
        "title": {"type": "string", "description": "The kind of problem, the same for all of its type."},
        "status": {"type": "integer", "description": "HTTP status."},
        "detail": {"type": "string", "description": "A sentence for people: what is wrong, where, what to do."},
        "reason": {"type": "string", "description": "Stable reason for programs, such as RUN_NOT_FOUND."},
        "request_id": {"type": "string", "description": "Id under which the logs tell more."},
        "violations": {"type": "array", "items": _VIOLATION, "description": "Every wrong field of the request."},
        "metadata": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Facts of this case, such as the missing permission.",
        },
    },
}


def problem_components() -> dict[str, Any]:
    """The responses by name."""
    return {f"Problem{status}": _response(status) for status in STATUSES}


def problem_responses(statuses: Iterable[int]) -> dict[str, Any]:
    """References for an operation's responses."""
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(set(statuses))}


def _response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": phrase_of(status),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in _WITH_RETRY:
        response["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again."}
        }
    return response
