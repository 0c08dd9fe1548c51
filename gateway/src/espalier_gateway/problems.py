"""Errors as RFC 9457 problem JSON. One table says which HTTP status each code has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from espalier_common.errors import EspalierError, InvalidArgument, Unauthenticated
from espalier_gateway.errors import HttpError

MEDIA_TYPE = "application/problem+json"

# By the code of the error; a reason in the second table wins.
STATUS_OF_CODE: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 412,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
STATUS_OF_REASON: Mapping[str, int] = {
    "DISK_FULL": 507,
    "UPLOAD_OFFSET_WRONG": 409,  # as tus, the protocol of resumable uploads, has it
}


@dataclass(frozen=True)
class Problem:
    """What a client gets to see of an error."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """The answer to a request that failed as a whole."""
        return Response(orjson.dumps(self.body), self.status, self.headers, media_type=MEDIA_TYPE)


def status_of(error: EspalierError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return STATUS_OF_REASON.get(error.reason) or STATUS_OF_CODE.get(error.code, 500)


def problem_of(error: EspalierError, request_id: str) -> Problem:
    """The problem that tells an error to a client. `type` and `title` depend on nothing but the reason."""
    status = status_of(error)
    body: dict[str, Any] = {
        "type": f"urn:espalier:problem:{error.reason.lower().replace('_', '-')}",
        "title": error.reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": printable(error.message),
        "reason": error.reason,
        "request_id": request_id,
    }
    if isinstance(error, InvalidArgument) and error.violations:
        body["violations"] = [
            {"field": printable(v.field), "description": printable(v.description), "reason": v.reason}
            for v in error.violations
        ]
    if error.metadata:
        body["metadata"] = {key: printable(value) for key, value in error.metadata.items()}
    return Problem(status, body, headers_of(error))


def phrase_of(status: int) -> str:
    """The standard phrase of a status, such as "Not Found"."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request"


def headers_of(error: EspalierError) -> dict[str, str]:
    """The headers that go with an error, such as Retry-After."""
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="espalier"'
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return headers


def printable(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
