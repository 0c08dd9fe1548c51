"""Errors on the wire: `EspalierError` to `google.rpc.Status` (AIP-193) and back, and every foreign error to ours.

raised                                          the caller gets
────────────────────────────────────────────────────────────────────────────────────────────
EspalierError                                   its code, reason, metadata, violations
grpc.RpcError of another service                that service's error, unchanged in code and reason
psycopg2: connection lost or refused            UNAVAILABLE          DATABASE_UNAVAILABLE
psycopg2: DiskFull, OSError ENOSPC/EDQUOT       RESOURCE_EXHAUSTED   DISK_FULL
psycopg2: QueryCanceled, TimeoutError           DEADLINE_EXCEEDED    DEADLINE_EXCEEDED
psycopg2: deadlock, serialization, lock         ABORTED              CONFLICT
psycopg2: unique violation                      ALREADY_EXISTS       ALREADY_EXISTS
psycopg2: foreign key, check, not null          FAILED_PRECONDITION  CONSTRAINT_VIOLATED
psycopg2: DataError                             INVALID_ARGUMENT     INVALID_ARGUMENT
SQLAlchemy: pool exhausted                      UNAVAILABLE          DATABASE_BUSY
SQLAlchemy: the row is gone or was changed      ABORTED              CONFLICT
nats: any                                       UNAVAILABLE          BUS_UNAVAILABLE
anything else                                   INTERNAL, the request id and nothing of the cause
"""

import errno
import math
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from espalier_common import errors
from espalier_common.errors import EspalierError, FieldViolation

DOMAIN = "espalier"
DETAILS_KEY = "grpc-status-details-bin"
# gRPC clients refuse trailing metadata of more than 8 KiB by default.
MAX_DETAILS_BYTES = 6 * 1024

_BY_CODE: dict[str, type[EspalierError]] = {
    kind.code: kind
    for kind in (
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.Unauthenticated,
        errors.Conflict,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Internal,
    )
}


class DiskFull(errors.ResourceExhausted):
    reason = "DISK_FULL"


class DatabaseUnavailable(errors.Unavailable):
    reason = "DATABASE_UNAVAILABLE"


class DatabaseBusy(errors.Unavailable):
    reason = "DATABASE_BUSY"


class BusUnavailable(errors.Unavailable):
    reason = "BUS_UNAVAILABLE"


class ConstraintViolated(errors.FailedPrecondition):
    reason = "CONSTRAINT_VIOLATED"


def code_of(error: EspalierError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    return grpc.StatusCode[error.code]


def to_status(error: EspalierError, request_id: str = "") -> status_pb2.Status:
    """The error with all its details, small enough for trailing metadata."""
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message[:1024])
    # An overlong value is cut: metadata of errors is for programs, and short.
    metadata = {key: value[:256] for key, value in error.metadata.items()}
    _pack(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if request_id:
        _pack(status, error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, errors.NotFound):
        _pack(status, error_details_pb2.ResourceInfo(resource_type=error.resource, resource_name=error.id[:256]))
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromMilliseconds(math.ceil(retry_after * 1000))
        _pack(status, info)
    if isinstance(error, errors.InvalidArgument) and error.violations:
        _pack(status, _bad_request(error.violations, room=MAX_DETAILS_BYTES - status.ByteSize()))
    return status


def from_rpc_error(error: grpc.RpcError) -> EspalierError:
    """The error that another service answered; the same type, reason, metadata and violations as it raised there."""
    status = _status_of(error)
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    message = (status.message if status else "") or _details(error) or "The service gave no reason."
    if status is None and code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable("A service of the platform does not answer at the moment; try again.", retry_after=1)
    if status is None and code in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL} and _broke_off(message):
        return errors.Unavailable("A service of the platform broke off; try again.", retry_after=1)
    if code is grpc.StatusCode.CANCELLED:
        return errors.Unavailable("The call was cancelled.")
    return _rebuild(code.name, message, _details_of(status))


def from_check(error: grpc.RpcError) -> EspalierError:
    """What auth answered when it was asked who calls: its refusal, or else that it cannot be told at the moment.

    A defect or a conflict over there is neither one of this service nor of its caller.
    """
    answer = from_rpc_error(error)
    if isinstance(answer, errors.Unauthenticated | errors.ResourceExhausted | errors.Unavailable):
        return answer
    return errors.Unavailable("Sign-in cannot be checked at the moment; try again.", retry_after=1)


def translate(error: BaseException) -> EspalierError:  # noqa: PLR0911
    """Any exception as an error of ours; the cause stays chained for the log. See the table above."""
    if isinstance(error, EspalierError):
        return error
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _disk_full()
    if isinstance(error, TimeoutError):
        return errors.DeadlineExceeded("The work took longer than the call may last; try again later.")
    module = type(error).__module__
    if module.startswith("sqlalchemy."):
        return _translate_sqlalchemy(error)
    if module.startswith("psycopg2"):
        return _translate_postgres(error)
    if module.startswith("nats."):
        return BusUnavailable("The message bus does not answer at the moment; try again.", retry_after=2)
    return errors.Internal()


def _translate_sqlalchemy(error: BaseException) -> EspalierError:
    original = getattr(error, "orig", None)
    if original is not None:
        return _translate_postgres(original)
    if type(error).__name__ == "TimeoutError":
        return DatabaseBusy("All database connections are in use; try again.", retry_after=1)
    if type(error).__name__ in {"StaleDataError", "ObjectDeletedError"}:
        return _changed_meanwhile()
    return errors.Internal()


def _translate_postgres(error: BaseException) -> EspalierError:  # noqa: PLR0911  (it is a table)
    code: str = getattr(error, "pgcode", None) or ""
    name = type(error).__name__
    if code == "53100":
        return _disk_full()
    if code == "57014":
        return errors.DeadlineExceeded("The database took too long to answer; narrow the request or try again.")
    if code in {"40001", "40P01", "55P03"}:
        return _changed_meanwhile()
    if code == "23505":
        return errors.AlreadyExists("Something with the same name or key is there already.")
    if code.startswith("23"):
        return ConstraintViolated("The change contradicts something that is stored; read it again.")
    if code.startswith("22") or name == "DataError":
        return errors.InvalidArgument(
            "A value of the request cannot be stored: it is out of range or has a wrong form."
        )
    if name in {"OperationalError", "InterfaceError"} or code[:2] in {"08", "57", "53"}:
        return DatabaseUnavailable("The database does not answer at the moment; try again.", retry_after=2)
    return errors.Internal()


def _changed_meanwhile() -> errors.Conflict:
    return errors.Conflict("Somebody changed the same thing at the same time; read it again and repeat.")


def _disk_full() -> DiskFull:
    return DiskFull("The disk of the platform is full. Free some space, then try again; nothing was stored.")


def _pack(status: status_pb2.Status, detail: Any) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def _bad_request(violations: Iterable[FieldViolation], *, room: int) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    pending = list(violations)
    for position, violation in enumerate(pending):
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=violation.field[:256], description=violation.description[:512], reason=violation.reason
        )
        if detail.ByteSize() + entry.ByteSize() > room - 128:
            rest = f"and {len(pending) - position} more findings"
            detail.field_violations.add(field="", description=rest, reason="MORE")
            break
        detail.field_violations.append(entry)
    return detail


def _status_of(error: grpc.RpcError) -> status_pb2.Status | None:
    trailing = error.trailing_metadata() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    for key, value in trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _broke_off(details: str) -> bool:
    """Whether it is gRPC that tells of a connection which ended under a call, as when the other process is killed."""
    return any(sign in details for sign in ("Stream removed", "RST_STREAM", "Socket closed", "GOAWAY"))


def _details(error: grpc.RpcError) -> str:
    return (error.details() or "") if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else str(error)


class _Details:
    """The parts of a Status, by type; empty where it has none."""

    def __init__(self) -> None:
        self.info = error_details_pb2.ErrorInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.resource = error_details_pb2.ResourceInfo()
        self.retry: error_details_pb2.RetryInfo | None = None


def _details_of(status: status_pb2.Status | None) -> _Details:
    found = _Details()
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(found.info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(found.bad_request)
        elif detail.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
            detail.Unpack(found.resource)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            found.retry = error_details_pb2.RetryInfo()
            detail.Unpack(found.retry)
    return found


def _rebuild(code: str, message: str, details: _Details) -> EspalierError:
    error = _typed(code, message, details)
    error.metadata = dict(details.info.metadata)
    if details.info.reason:
        error.reason = details.info.reason
    if details.retry is not None and isinstance(error, errors.ResourceExhausted | errors.Unavailable):
        error.retry_after = details.retry.retry_delay.ToMilliseconds() / 1000
    return error


def _typed(code: str, message: str, details: _Details) -> EspalierError:
    if code in {"INVALID_ARGUMENT", "OUT_OF_RANGE"}:
        found = details.bad_request.field_violations
        return errors.InvalidArgument(
            message, violations=[FieldViolation(item.field, item.description, item.reason) for item in found]
        )
    if code == "NOT_FOUND":
        return errors.NotFound(details.resource.resource_type, details.resource.resource_name, message=message)
    if code == "PERMISSION_DENIED":
        return errors.PermissionDenied(details.info.metadata.get("permission", ""), message)
    return _BY_CODE.get(code, errors.Internal)(message)
