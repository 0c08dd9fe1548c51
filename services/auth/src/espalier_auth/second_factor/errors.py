"""What is refused of second factors, one line each.

Unauthenticated     SecondFactorRequired · SecondFactorWrong
PermissionDenied    CodeRefused
FailedPrecondition  SecondFactorNotEnrolled · EnrolmentOver · RemoveOwn
AlreadyExists       SecondFactorEnrolled
Unavailable         SecondFactorSealed
"""

from enum import StrEnum

from espalier_common.errors import AlreadyExists, FailedPrecondition, PermissionDenied, Unauthenticated, Unavailable

WRONG = "SECOND_FACTOR_WRONG"


class Fault(StrEnum):
    """Why a code does not count, as whoever knows the password is told."""

    WRONG = (
        "The code is wrong, or was used before; give the one that your authenticator shows now. If that is wrong too, "
        "look whether the clock of your device is right."
    )
    RAN_OUT = (
        "The code ran out: each is good for the 30 seconds in which your authenticator shows it. Give the one that it "
        "shows now; if that ran out too, the clock of your device is late."
    )
    LOCKED = (
        "Too many wrong codes were given for this account: sign in with a recovery code, or have the second factor "
        "removed."
    )


class WrongCode(Exception):
    """A code that does not count, on whatever way it came."""

    def __init__(self, fault: Fault = Fault.WRONG) -> None:
        super().__init__()
        self.fault = fault


class SecondFactorRequired(Unauthenticated):
    """Told only to whoever knows the password."""

    reason = "SECOND_FACTOR_REQUIRED"

    def __init__(self) -> None:
        super().__init__(
            "This account has a second factor: sign in with the code of your authenticator too, or a recovery code."
        )


class SecondFactorWrong(Unauthenticated):
    """Told only to whoever knows the password."""

    reason = WRONG

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)


class CodeRefused(PermissionDenied):
    """The same of somebody who is signed in: his session is not what is wrong."""

    reason = WRONG

    def __init__(self, fault: Fault) -> None:
        super().__init__("", fault.value)


class SecondFactorEnrolled(AlreadyExists):
    reason = "SECOND_FACTOR_ENROLLED"

    def __init__(self) -> None:
        super().__init__("You have a second factor already; remove it, with a code, before you enrol another one.")


class SecondFactorNotEnrolled(FailedPrecondition):
    reason = "SECOND_FACTOR_NOT_ENROLLED"

    def __init__(self, whose: str = "You have") -> None:
        super().__init__(f"{whose} no second factor.")


class EnrolmentOver(FailedPrecondition):
    reason = "ENROLMENT_OVER"

    def __init__(self) -> None:
        super().__init__("No second factor is being enrolled, or it was begun too long ago: begin again.")


class RemoveOwn(FailedPrecondition):
    """What an administrator may do for others would let him, or who found his session, pass by his own codes."""

    reason = "REMOVE_OWN_WITH_CODE"

    def __init__(self) -> None:
        super().__init__(
            "Remove your own second factor with a code, at your account; for another user this removes it."
        )


class SecondFactorSealed(Unavailable):
    reason = "SECOND_FACTOR_SEALED"

    def __init__(self) -> None:
        super().__init__("The second factor cannot be checked here at the moment; try again.", retry_after=5)
