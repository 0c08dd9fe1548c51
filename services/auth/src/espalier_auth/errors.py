"""What auth refuses, one line each.

Unauthenticated      InvalidCredentials · InitialPasswordOver · InvalidRefreshToken
NotFound             UserNotFound
AlreadyExists        UsernameTaken · EmailTaken
FailedPrecondition   LastAdmin
Conflict             ChangedMeanwhile
PermissionDenied     AboveOwnRights · ForPeopleOnly · SignInAgain
InvalidArgument      InvalidUser · InvalidPassword
ResourceExhausted    TooManySignIns · TooManyPasswordTries
"""

from collections.abc import Sequence

from espalier_common.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)


class InvalidCredentials(Unauthenticated):
    """Unknown user, wrong password or disabled user: told apart nowhere, or names could be guessed."""

    reason = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("Username or password is wrong.")


class InitialPasswordOver(Unauthenticated):
    """The right password, but one that somebody else chose, too long ago. Told only to whoever knows it."""

    reason = "INITIAL_PASSWORD_OVER"

    def __init__(self) -> None:
        super().__init__(
            "The password that was chosen for you is over; ask an administrator for a link to choose your own."
        )


class InvalidRefreshToken(Unauthenticated):
    """Unknown, used, expired or revoked: told apart in the log only."""

    reason = "INVALID_REFRESH_TOKEN"

    def __init__(self) -> None:
        super().__init__("The session is over; sign in again.")


class UserNotFound(NotFound):
    reason = "USER_NOT_FOUND"

    def __init__(self, id: str) -> None:
        super().__init__("user", id)


class UsernameTaken(AlreadyExists):
    reason = "USERNAME_TAKEN"

    def __init__(self, username: str) -> None:
        super().__init__(f"There is already a user {username!r}; choose another username.")


class EmailTaken(AlreadyExists):
    """Told to whoever administers users, or was invited under the address; to nobody else."""

    reason = "EMAIL_TAKEN"

    def __init__(self, email: str) -> None:
        super().__init__(f"The e-mail address {email} belongs to another user already; look for it among the users.")


class ChangedMeanwhile(Conflict):
    reason = "CHANGED_MEANWHILE"

    def __init__(self, what: str) -> None:
        super().__init__(f"Somebody else changed {what} meanwhile; look at it again and repeat your change.")


class LastAdmin(FailedPrecondition):
    reason = "LAST_ADMIN"

    def __init__(self, username: str) -> None:
        super().__init__(
            f"{username!r} is the last administrator who can sign in; give somebody else the role admin first."
        )


class AboveOwnRights(PermissionDenied):
    """The caller would give, or touch, rights that he does not have himself."""

    reason = "ABOVE_OWN_RIGHTS"

    def __init__(self, role: str, *, lacking: Sequence[str]) -> None:
        """`lacking`: permissions that the role gives and the caller does not have, or not as far; at least one."""
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        super().__init__(
            lacking[0],
            f"The role {role!r} reaches further than your own rights, with the permission {lacking[0]!r}{more}; "
            "ask somebody who has it.",
        )


class ForPeopleOnly(PermissionDenied):
    reason = "FOR_PEOPLE_ONLY"

    def __init__(self) -> None:
        super().__init__("AUTHENTICATED", "This call is about the signed-in user's own account; a service has none.")


class SignInAgain(PermissionDenied):
    """What decides over the way into an account needs more than a session that may have been left open."""

    reason = "SIGN_IN_AGAIN"

    def __init__(self, what: str) -> None:
        super().__init__("", f"Sign in again {what}: you did so too long ago.")


class InvalidUser(InvalidArgument):
    reason = "INVALID_USER"


class InvalidPassword(InvalidArgument):
    reason = "INVALID_PASSWORD"


class TooManyPasswordTries(ResourceExhausted):
    """Too many passwords failed from one address, or on one device; told without a word about any account."""

    reason = "TOO_MANY_PASSWORD_TRIES"

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many wrong passwords; wait a while, then try again.", retry_after=max(1.0, seconds))


class TooManySignIns(ResourceExhausted):
    """More passwords wait to be checked than can be checked in a few seconds."""

    reason = "TOO_MANY_SIGN_INS"

    def __init__(self) -> None:
        super().__init__("Too many people sign in at this moment; try again in a few seconds.", retry_after=2)
