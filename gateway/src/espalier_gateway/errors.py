"""Errors that only HTTP knows. They carry their status; all others get it from the table in `problems`.

EspalierError
└── HttpError
    ├── MalformedRequest      400
    ├── HostRefused           400
    ├── OriginRefused         403
    ├── CsrfRefused           403
    ├── RouteNotFound         404
    ├── MethodNotAllowed      405  + Allow
    ├── RequestTooSlow        408
    ├── LengthRequired        411
    ├── NoSuchState           412
    ├── VersionMismatch       412  + Tus-Version
    ├── BodyTooLarge          413
    ├── TargetTooLong         414
    ├── UnsupportedMedia      415
    ├── RangeNotSatisfiable   416
    ├── HeadersTooLarge       431
    ├── RpcMissing            501
    └── ServiceNotConfigured  503

ClientGone is no error of the caller and never rendered: nobody is left to read it.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from espalier_common.errors import EspalierError


class HttpError(EspalierError):
    """An error with an HTTP status of its own and, where the protocol asks for them, headers."""

    status: ClassVar[int] = 400

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class MalformedRequest(HttpError):
    code = "INVALID_ARGUMENT"
    reason = "MALFORMED_REQUEST"


class HostRefused(HttpError):
    code = "INVALID_ARGUMENT"
    reason = "HOST_REFUSED"


class OriginRefused(HttpError):
    code = "PERMISSION_DENIED"
    reason = "ORIGIN_REFUSED"
    status = 403


class CsrfRefused(HttpError):
    code = "PERMISSION_DENIED"
    reason = "CSRF_REFUSED"
    status = 403


class RouteNotFound(HttpError):
    code = "NOT_FOUND"
    reason = "ROUTE_NOT_FOUND"
    status = 404

    def __init__(self, path: str, *, here: str = "") -> None:
        there = f"here are {here}" if here else "/openapi.json lists what there is"
        super().__init__(f"There is nothing at {path[:200]}; {there}.")


class MethodNotAllowed(HttpError):
    code = "UNIMPLEMENTED"
    reason = "METHOD_NOT_ALLOWED"
    status = 405

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        names = ", ".join(sorted(allowed))
        super().__init__(f"{method[:20]} is not possible here; possible is {names}.", headers={"Allow": names})


class RequestTooSlow(HttpError):
    code = "DEADLINE_EXCEEDED"
    reason = "REQUEST_TOO_SLOW"
    status = 408

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Connection": "close"})


class LengthRequired(HttpError):
    code = "INVALID_ARGUMENT"
    reason = "LENGTH_REQUIRED"
    status = 411


class NoSuchState(HttpError):
    code = "ABORTED"
    reason = "NO_SUCH_STATE"
    status = 412


class VersionMismatch(HttpError):
    code = "FAILED_PRECONDITION"
    reason = "TUS_VERSION_MISMATCH"
    status = 412


class BodyTooLarge(HttpError):
    """The connection stays open: closed with bytes on their way, the client would see a reset and not the answer."""

    code = "INVALID_ARGUMENT"
    reason = "BODY_TOO_LARGE"
    status = 413


class TargetTooLong(HttpError):
    code = "INVALID_ARGUMENT"
    reason = "TARGET_TOO_LONG"
    status = 414


class UnsupportedMedia(HttpError):
    code = "INVALID_ARGUMENT"
    reason = "UNSUPPORTED_MEDIA_TYPE"
    status = 415


class RangeNotSatisfiable(HttpError):
    code = "OUT_OF_RANGE"
    reason = "RANGE_NOT_SATISFIABLE"
    status = 416


class HeadersTooLarge(HttpError):
    code = "INVALID_ARGUMENT"
    reason = "HEADERS_TOO_LARGE"
    status = 431


class RpcMissing(HttpError):
    """The service runs a version that does not have this RPC."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"
    status = 501


class ServiceNotConfigured(HttpError):
    code = "UNAVAILABLE"
    reason = "SERVICE_NOT_CONFIGURED"
    status = 503


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""
