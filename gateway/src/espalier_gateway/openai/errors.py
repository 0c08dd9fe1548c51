"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`, whatever lies below /v1."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from espalier_common.errors import EspalierError, InvalidArgument
from espalier_gateway.problems import headers_of, printable, status_of

ROOT = "/v1"
MODEL = "model"
# A client that tries again by itself is told not to where only somebody else, or tomorrow, can help.
LONG_SECONDS = 60.0

_CODE_OF_REASON = {
    "MODEL_NOT_FOUND": "model_not_found",
    "QUOTA_EXCEEDED": "insufficient_quota",
    "ROUTE_NOT_FOUND": "unknown_url",
}
_CODE_OF_CODE = {"UNAUTHENTICATED": "invalid_api_key", "PERMISSION_DENIED": "insufficient_permissions"}
_ABOUT_THE_MODEL = frozenset({"MODEL_NOT_FOUND", "MODEL_NOT_READY"})
_VAIN_WITHOUT_TIME = frozenset({"MODEL_NOT_READY", "QUOTA_EXCEEDED"})


def speaks_openai(path: str) -> bool:
    """Whether what is below this path answers as OpenAI does."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def error_body(error: EspalierError) -> bytes:
    """The JSON that tells an error."""
    status = status_of(error)
    told = {"message": printable(error.message), "type": _type_of(error, status), "param": _param_of(error)}
    return orjson.dumps({"error": {**told, "code": _code_of(error)}})


def error_response(error: EspalierError) -> Response:
    """The answer to a request that failed as a whole."""
    headers = {**headers_of(error), **_retry_of(error)}
    return Response(error_body(error), status_of(error), headers, media_type="application/json")


def _type_of(error: EspalierError, status: int) -> str:
    if error.reason == "QUOTA_EXCEEDED":
        return "insufficient_quota"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _code_of(error: EspalierError) -> str:
    told: str | None = error.metadata.get("code")
    return told or _CODE_OF_REASON.get(error.reason) or _CODE_OF_CODE.get(error.code) or error.reason.lower()


def _param_of(error: EspalierError) -> str | None:
    if isinstance(error, InvalidArgument) and error.violations:
        return printable(error.violations[0].field)
    return MODEL if error.reason in _ABOUT_THE_MODEL else None


def _retry_of(error: EspalierError) -> Mapping[str, str]:
    seconds: Any = getattr(error, "retry_after", None)
    is_vain = (seconds is None and error.reason in _VAIN_WITHOUT_TIME) or (seconds or 0.0) > LONG_SECONDS
    return {"x-should-retry": "false"} if is_vain else {}
