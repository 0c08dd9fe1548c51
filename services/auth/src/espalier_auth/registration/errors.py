"""What registration refuses, one line each.

PermissionDenied    RegistrationClosed · InvitationNeeded
NotFound            InvitationNotFound
FailedPrecondition  InvalidInvitation · InvalidResetLink · PublicUrlMissing · MailNotConfigured · PasswordElsewhere
ResourceExhausted   TooManyRequests
"""

from espalier_common.errors import FailedPrecondition, NotFound, PermissionDenied, ResourceExhausted


class RegistrationClosed(PermissionDenied):
    reason = "REGISTRATION_CLOSED"

    def __init__(self) -> None:
        super().__init__(
            "auth.users.create",
            "Nobody can register here; ask an administrator, who has the permission auth.users.create, for an account.",
        )


class InvitationNeeded(PermissionDenied):
    reason = "INVITATION_NEEDED"

    def __init__(self) -> None:
        super().__init__(
            "auth.invitations.create",
            "Registering here needs an invitation; ask an administrator, who has the permission "
            "auth.invitations.create, for one.",
        )


class InvalidInvitation(FailedPrecondition):
    """Unknown, used, expired or taken back: told apart nowhere."""

    reason = "INVALID_INVITATION"

    def __init__(self) -> None:
        super().__init__("The invitation is not valid: it was used, has expired or was taken back. Ask for a new one.")


class InvalidResetLink(FailedPrecondition):
    """Unknown, used, expired or replaced: told apart nowhere."""

    reason = "INVALID_RESET_LINK"

    def __init__(self) -> None:
        super().__init__("The link is not valid: it was used or has expired. Ask for another one.")


class InvitationNotFound(NotFound):
    reason = "INVITATION_NOT_FOUND"

    def __init__(self, id: str) -> None:
        super().__init__("invitation", id)


class PublicUrlMissing(FailedPrecondition):
    reason = "PUBLIC_URL_MISSING"

    def __init__(self) -> None:
        super().__init__("Links need the address that browsers use: set ESPALIER_PUBLIC_URL for auth.")


class MailNotConfigured(FailedPrecondition):
    reason = "MAIL_NOT_CONFIGURED"

    def __init__(self) -> None:
        super().__init__("This platform sends no mail; ask an administrator for a link with which to set a password.")


class PasswordElsewhere(FailedPrecondition):
    reason = "PASSWORD_ELSEWHERE"

    def __init__(self, message: str = "This user signs in with an identity provider and has no password here.") -> None:
        super().__init__(message)


class TooManyRequests(ResourceExhausted):
    reason = "TOO_MANY_REQUESTS"

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many tries from your address; wait a while.", retry_after=max(1.0, seconds))
