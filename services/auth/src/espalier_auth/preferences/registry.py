"""The settings there are: each with its meaning, its unit, its bounds and the environment variable that overrules it.

Only what is read while the service runs is here, so that a change takes effect with the next call, on every replica.
"""

from dataclasses import dataclass
from typing import Literal

from espalier_auth.settings import MINIMUM_PASSWORD_LENGTH
from espalier_common.errors import FieldViolation

Type = Literal["CHOICE", "INTEGER"]

REGISTRATION = "auth.registration"
PASSWORD_MIN_LENGTH = "auth.password_min_length"  # noqa: S105  (the name of a setting)
REFRESH_TOKEN_DAYS = "auth.refresh_token_days"  # noqa: S105  (the same)
SESSION_DAYS = "auth.session_days"
SECOND_FACTOR = "auth.second_factor"
REQUIRED = "required"


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One setting. `field` is its name in AuthSettings, where the environment says its value, and its default."""

    name: str
    field: str
    type: Type
    description: str
    allowed_values: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0

    @property
    def variable(self) -> str:
        """The environment variable that overrules it."""
        return f"ESPALIER_{self.field.upper()}"

    def find_violation(self, value: str) -> FieldViolation | None:
        """What is wrong with a value; None when nothing is."""
        if self.type == "CHOICE":
            if value in self.allowed_values:
                return None
            return _violation(f"must be one of {', '.join(self.allowed_values)}")
        # Nothing but digits: int() would also take blanks, signs, underscores and the digits of other scripts.
        if value.isascii() and value.isdigit() and len(value) < 10 and self.minimum <= int(value) <= self.maximum:
            return None
        return _violation(f"must be a whole number from {self.minimum} to {self.maximum}")

    def normalized(self, value: str) -> str:
        """A right value in the one way to write it: "012" is "12"."""
        return str(int(value)) if self.type == "INTEGER" else value


def _violation(text: str) -> FieldViolation:
    return FieldViolation("setting.value", text, "VALUE")


DEFINITIONS = (
    Definition(
        name=PASSWORD_MIN_LENGTH,
        field="password_min_length",
        type="INTEGER",
        minimum=MINIMUM_PASSWORD_LENGTH,
        maximum=128,
        description="Characters that a new password needs at least. Passwords that are in use stay.",
    ),
    Definition(
        name=REFRESH_TOKEN_DAYS,
        field="refresh_token_days",
        type="INTEGER",
        minimum=1,
        maximum=365,
        description="Days after which a session ends that nobody used. Counts for tokens given out from now on.",
    ),
    Definition(
        name=REGISTRATION,
        field="registration",
        type="CHOICE",
        allowed_values=("closed", "invitation", "open"),
        description="Who may register: nobody (closed), who has an invitation, or everybody (open).",
    ),
    Definition(
        name=SECOND_FACTOR,
        field="second_factor",
        type="CHOICE",
        allowed_values=("optional", REQUIRED),
        description="Whether whoever signs in with a password needs a second factor. Required: who has none may only "
        "enrol one, from his next token on, ten minutes at most. Sign-ins at a provider and API keys are not asked.",
    ),
    Definition(
        name=SESSION_DAYS,
        field="session_days",
        type="INTEGER",
        minimum=1,
        maximum=3650,
        description="Days after which everybody signs in again, however busy. Counts for sessions begun from now on.",
    ),
)
