"""What is refused of second factors, one line each.

Unauthenticated     SecondFactorRequired · SecondFactorWrong
PermissionDenied    CodeRefused
FailedPrecondition  SecondFactorNotEnrolled · EnrolmentOver · RemoveOwn
AlreadyExists       SecondFactorEnrolled
Unavailable         SecondFactorSealed
"""

from espalier_common.errors import AlreadyExists, FailedPrecondition, PermissionDenied, Unauthenticated, Unavailable

WRONG = "SECOND_FACTOR_WRONG"
_WRONG_TEXT = "The code is wrong, was used before, or is over; give the one that your authenticator shows now."
_TOO_MANY_TEXT = (
    "Too many wrong codes were given for this account: sign in with a recovery code, or have the second factor removed."
)


class WrongCode(Exception):
    """A code that does not count, on whatever way it came; `is_locked`: no code of the authenticator would."""

    def __init__(self, *, is_locked: bool = False) -> None:
        super().__init__()
        self.is_locked = is_locked


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

    def __init__(self, *, is_locked: bool) -> None:
        super().__init__(_TOO_MANY_TEXT if is_locked else _WRONG_TEXT)


class CodeRefused(PermissionDenied):
    """The same of somebody who is signed in: his session is not what is wrong."""

    reason = WRONG

    def __init__(self, *, is_locked: bool = False) -> None:
        super().__init__("", _TOO_MANY_TEXT if is_locked else _WRONG_TEXT)


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
