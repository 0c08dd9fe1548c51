"""What commands on the machine do for an administrator whom nobody else can help.

Nobody is signed in there and no call is made, so they tell the audit log themselves.
"""

import sys

from espalier_auth.events import tell_rescue
from espalier_auth.registration.service import PasswordResets
from espalier_auth.second_factor.service import SecondFactors
from espalier_common.db import Database
from espalier_common.errors import EspalierError
from espalier_common.settings import SettingsError
from espalier_common.telemetry import get_logger

_REMOVAL = "espalier.auth.v1.SecondFactorService/RemoveUserSecondFactor"
_RESET = "espalier.auth.v1.RegistrationService/CreatePasswordReset"

_log = get_logger(__name__)


def remove_second_factor(database: Database, second_factors: SecondFactors, username: str) -> None:
    """Lets somebody in with his password alone. Raises SettingsError when there is nothing to remove."""
    with database.transaction() as session:
        user = second_factors.remove_by_operator(session, username)
        tell_rescue(session, user, action=_REMOVAL)
    _log.warning("a second factor was removed on the machine", user_id=user.id)


def reset_password(database: Database, resets: PasswordResets, username: str) -> None:
    """Prints a link with which somebody chooses a new password. Raises SettingsError when he cannot have one."""
    try:
        with database.transaction() as session:
            user, link = resets.create_by_operator(session, username)
            tell_rescue(session, user, action=_RESET)
    except EspalierError as error:
        raise SettingsError(error.message) from error
    _log.warning("a link for a password was made on the machine", user_id=user.id)
    sys.stdout.write(f"{link}\n")
