"""Why a command ended. Each type has the exit code of the command.

ClientError (1)
├── UsageError (2)             the command line is wrong
├── NotFound (3)               the thing does not exist, or not for you
├── Unauthenticated (4)        sign in first
├── PermissionDenied (5)       you may not
├── InvalidInput (6)           what was sent is wrong, or the thing is in a state that does not allow it
├── Unavailable (7)            the platform does not answer
└── PlatformError (1)          the platform of this machine could not be started or stopped
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Violation:
    """One wrong field: its path and what is wrong with it."""

    field: str
    description: str


class ClientError(Exception):
    """A sentence for people; `violations` when single fields are wrong, `request_id` when the platform answered."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, reason: str = "", violations: tuple[Violation, ...] = (), request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations
        self.request_id = request_id


class UsageError(ClientError):
    """The command line is wrong."""

    exit_code = 2


class NotFound(ClientError):
    """The thing does not exist, or not for this user."""

    exit_code = 3


class Unauthenticated(ClientError):
    """Nobody is signed in, or the session has ended."""

    exit_code = 4


class PermissionDenied(ClientError):
    """The signed-in user may not do this."""

    exit_code = 5


class InvalidInput(ClientError):
    """What was sent is wrong, or the thing is in a state that does not allow it."""

    exit_code = 6


class Unavailable(ClientError):
    """The platform does not answer, or one of its parts does not."""

    exit_code = 7


class PlatformError(ClientError):
    """The platform of this machine could not be started or stopped."""


# HTTP status → type; the rest of 4xx is InvalidInput, of 5xx Unavailable or ClientError.
BY_STATUS: Mapping[int, type[ClientError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    500: ClientError,
    501: ClientError,
}


def from_problem(status: int, problem: Mapping[str, Any], *, request_id: str = "") -> ClientError:
    """The error that a problem document (RFC 9457) tells of. Tolerates documents that are no problem at all."""
    kind = BY_STATUS.get(status, InvalidInput if status < 500 else Unavailable)
    message = str(problem.get("detail") or problem.get("title") or f"The platform answered {status}.")
    violations = tuple(
        Violation(str(item.get("field", "")), str(item.get("description", "")))
        for item in problem.get("violations") or ()
        if isinstance(item, dict)
    )
    return kind(
        message,
        reason=str(problem.get("reason", "")),
        violations=violations,
        request_id=str(problem.get("request_id") or request_id),
    )
