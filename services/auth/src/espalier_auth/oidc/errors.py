"""What goes wrong with single sign-on, one line each.

NotFound            ProviderNotFound · IdentityNotFound
Unauthenticated     LoginExpired · LogoutRefused · ProviderRefused · ProviderUntrusted · SignInTooWeak · UserDisabled
FailedPrecondition  OnlyWayIn
AlreadyExists       AccountExists · IdentityTaken · LinkedAlready
InvalidArgument     IncompleteAnswer
Unavailable         ProviderUnavailable
"""

from collections.abc import Sequence

from espalier_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)


class ProviderNotFound(NotFound):
    reason = "IDENTITY_PROVIDER_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__("identity provider", name)


class IdentityNotFound(NotFound):
    reason = "IDENTITY_NOT_FOUND"

    def __init__(self, provider: str) -> None:
        super().__init__("identity", provider, message=f"Your account is not linked to {provider!r}.")


class OnlyWayIn(FailedPrecondition):
    reason = "ONLY_WAY_IN"

    def __init__(self) -> None:
        super().__init__("Your account has no password, so this is its only way in; it stays.")


class LoginExpired(Unauthenticated):
    """Too old, finished before, or begun in another browser: told apart in the log only."""

    reason = "OIDC_LOGIN_EXPIRED"

    def __init__(self) -> None:
        super().__init__("This sign-in is over, or was begun in another browser; begin it again.")


class ProviderRefused(Unauthenticated):
    """The provider said no, in its own words."""

    reason = "OIDC_PROVIDER_REFUSED"

    def __init__(self, provider: str, error: str, description: str) -> None:
        said = f"{_shown(error)}: {_shown(description)}" if description else _shown(error)
        super().__init__(
            f"{provider} refused the sign-in ({said}). Try again; if it stays, ask who runs {provider}.",
            metadata={"error": _shown(error), "error_description": _shown(description)},
        )


class ProviderUntrusted(Unauthenticated):
    """What the provider sent is not what it must be, so nobody is signed in by it."""

    reason = "OIDC_ANSWER_NOT_TRUSTED"

    def __init__(self, provider: str, cause: str) -> None:
        super().__init__(
            f"What {provider} sent cannot be trusted: {cause}. Begin again; if it stays, an administrator compares "
            "the provider's settings with ESPALIER_OIDC_PROVIDERS."
        )


class LogoutRefused(Unauthenticated):
    """What came as a logout token ends no session."""

    reason = "OIDC_LOGOUT_NOT_TRUSTED"

    def __init__(self, provider: str, cause: str) -> None:
        super().__init__(f"What came as a logout token of {provider} cannot be trusted: {cause}.")


class SignInTooWeak(Unauthenticated):
    """The provider vouches for who it is, and not for as much as was asked for."""

    reason = "OIDC_SIGN_IN_TOO_WEAK"

    def __init__(self, provider: str, said: str, wanted: Sequence[str]) -> None:
        found = f"says that this sign-in was {_shown(said)!r}" if said else "does not say how strong this sign-in was"
        super().__init__(
            f"{provider} {found}; it has to be {' or '.join(wanted)}. Sign out there and in again, with your second "
            f"factor; if it stays, ask who runs {provider}.",
            metadata={"acr": _shown(said), "acr_values": " ".join(wanted)},
        )


class UserDisabled(Unauthenticated):
    """Told, for the provider has vouched that it is he."""

    reason = "USER_DISABLED"

    def __init__(self) -> None:
        super().__init__("Your account is disabled; ask an administrator.")


class AccountExists(AlreadyExists):
    """Whoever has the same address or name at a provider need not be the same person."""

    reason = "ACCOUNT_EXISTS"

    def __init__(self, provider: str, what: str) -> None:
        super().__init__(
            f"There is already an account with {what}, and {provider} does not know that it is yours. To link the two, "
            f"sign in with that account's password and then choose {provider} again. "
            f"If the account is not yours, sign in with {provider} again and ask for an account of your own."
        )


class IdentityTaken(AlreadyExists):
    reason = "IDENTITY_TAKEN"

    def __init__(self, provider: str) -> None:
        super().__init__(f"Another account signs in with this account of {provider} already.")


class LinkedAlready(AlreadyExists):
    reason = "IDENTITY_LINKED"

    def __init__(self, provider: str) -> None:
        super().__init__(f"Your account is linked to another account of {provider} already.")


class IncompleteAnswer(InvalidArgument):
    reason = "INVALID_OIDC_ANSWER"

    def __init__(self) -> None:
        found = FieldViolation("code", "is required where the provider sent no error", "REQUIRED")
        super().__init__("The provider's answer has neither a code nor an error.", violations=[found])


class ProviderUnavailable(Unavailable):
    reason = "OIDC_PROVIDER_UNAVAILABLE"

    def __init__(self, provider: str, cause: str) -> None:
        super().__init__(
            f"{provider} cannot be asked at the moment ({cause}); try again, or sign in with a password.", retry_after=5
        )


def _shown(text: str) -> str:
    """A foreign text on one line, short, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)[:300].strip()
