"""The errors of the platform: types with fields, raised where known, rendered once at the edge.

    EspalierError                     code                 reason (stable, for programs)
    ├── InvalidArgument               INVALID_ARGUMENT     INVALID_ARGUMENT    + violations by field
    ├── NotFound                      NOT_FOUND            NOT_FOUND           + resource, id
    ├── AlreadyExists                 ALREADY_EXISTS       ALREADY_EXISTS
    ├── FailedPrecondition            FAILED_PRECONDITION  FAILED_PRECONDITION
    ├── PermissionDenied              PERMISSION_DENIED    PERMISSION_DENIED   + permission
    ├── Unauthenticated               UNAUTHENTICATED      UNAUTHENTICATED
    ├── Conflict                      ABORTED              CONFLICT            (a stale etag, a lost race: read again)
    ├── ResourceExhausted             RESOURCE_EXHAUSTED   RESOURCE_EXHAUSTED  + retry_after
    ├── Unavailable                   UNAVAILABLE          UNAVAILABLE         + retry_after
    ├── DeadlineExceeded              DEADLINE_EXCEEDED    DEADLINE_EXCEEDED
    └── Internal                      INTERNAL             INTERNAL            (a defect of ours: told in the log only)

A service subclasses with one line: `class RunNotFound(NotFound): reason = "RUN_NOT_FOUND"`.
The message is a sentence for people: what was wrong, where, what to do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar


class EspalierError(Exception):
    """Any error that a caller may see. `code` names a gRPC status code, `reason` is UPPER_SNAKE and never changes."""

    code: ClassVar[str] = "INTERNAL"
    reason: str = "INTERNAL"

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


@dataclass(frozen=True)
class FieldViolation:
    """One thing wrong with one field of a request; `field` is a path such as `run.datasets[2].path`."""

    field: str
    description: str
    reason: str = "INVALID"


class InvalidArgument(EspalierError):
    """The request is wrong whatever the state of the system; every violation found is told at once."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        violations: Iterable[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.violations = tuple(violations)


class NotFound(EspalierError):
    """There is no such thing, or none that this caller may see: the two are told apart nowhere."""

    code = "NOT_FOUND"
    reason = "NOT_FOUND"

    def __init__(self, resource: str, id: str, *, message: str | None = None) -> None:
        super().__init__(message or f"There is no {resource} {id!r}.", metadata={"resource": resource, "id": id})
        self.resource = resource
        self.id = id


class AlreadyExists(EspalierError):
    """Something with this name or key is there already."""

    code = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class FailedPrecondition(EspalierError):
    """The request is right, the state of the system is not: say which state it needs."""

    code = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class PermissionDenied(EspalierError):
    """The caller is known and may not do this. `permission` is empty where no permission would help."""

    code = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"

    def __init__(self, permission: str, message: str | None = None) -> None:
        text = message or f"This needs the permission {permission!r}; ask an administrator for a role that has it."
        super().__init__(text, metadata={"permission": permission} if permission else None)
        self.permission = permission


class Unauthenticated(EspalierError):
    """Nobody is known behind the call: no token, or one that is not valid any more."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class Conflict(EspalierError):
    """Somebody else changed the same thing meanwhile; read again and repeat."""

    code = "ABORTED"
    reason = "CONFLICT"


class _Retryable(EspalierError):
    def __init__(
        self, message: str, *, retry_after: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.retry_after = retry_after


class ResourceExhausted(_Retryable):
    """A limit is reached: requests, quota, disk. `retry_after` in seconds where waiting helps."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"


class Unavailable(_Retryable):
    """Something needed is not there at the moment; the same call may succeed in `retry_after` seconds."""

    code = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class DeadlineExceeded(EspalierError):
    """The time that the caller gave was over before the work was done."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Internal(EspalierError):
    """A defect of ours. The caller learns the request id; the cause stands in the log."""

    code = "INTERNAL"
    reason = "INTERNAL"

    def __init__(
        self, message: str = "Something went wrong here; the administrator finds the cause under the request id."
    ) -> None:
        super().__init__(message)
