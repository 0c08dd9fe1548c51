"""Who was let in with a password alone where a second factor is required: he may enrol one, and nothing else."""

from typing import TYPE_CHECKING

from espalier_common.errors import PermissionDenied

if TYPE_CHECKING:
    from espalier_common.identity import Principal


class SecondFactorEnrolmentRequired(PermissionDenied):
    """No permission helps; the session goes on once its user has a second factor."""

    reason = "SECOND_FACTOR_ENROLMENT_REQUIRED"

    def __init__(self) -> None:
        super().__init__(
            "",
            "This platform asks for a second factor: enrol one at your account in the console, or with "
            "`espalier second-factor enrol`, then go on.",
        )


def require_enrolled(principal: "Principal") -> None:
    """Raises SecondFactorEnrolmentRequired for a session that may do nothing else."""
    if principal.must_enrol:
        raise SecondFactorEnrolmentRequired
