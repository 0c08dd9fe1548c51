"""What must be there before auth answers anybody: a key to sign with, and somebody who can sign in."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from espalier_auth.first_admin import FirstAdmin
from espalier_auth.keys import SigningKeys
from espalier_auth.passwords import Passwords
from espalier_auth.service import Users
from espalier_common.db import Database
from espalier_common.settings import SettingsError


def prepare(
    database: Database,
    *,
    keys: SigningKeys,
    also_sealed: Callable[[Session], int],
    users: Users,
    passwords: Passwords,
    first_admin: FirstAdmin,
) -> None:
    """Opens or makes the signing key, after a change of the master key too; creates the first administrator.

    Raises SettingsError when it cannot.
    """
    if keys.are_changing_over:
        keys.reseal(also_sealed)
    keys.load()
    with database.transaction() as session:
        first_admin.ensure(session, users=users, passwords=passwords)


def rotate_master_key(keys: SigningKeys, also_sealed: Callable[[Session], int]) -> None:
    """Seals all that is sealed with the present master key, without serving. Raises SettingsError when it cannot."""
    if not keys.are_changing_over:
        raise SettingsError(
            "ESPALIER_FORMER_MASTER_KEY is missing: it is what ESPALIER_MASTER_KEY was until now, and "
            "ESPALIER_MASTER_KEY is the new one (openssl rand -base64 32)."
        )
    keys.reseal(also_sealed)
