"""What must be there before auth answers anybody: a key to sign with, and somebody who can sign in."""

from espalier_auth.first_admin import FirstAdmin
from espalier_auth.keys import SigningKeys
from espalier_auth.passwords import Passwords
from espalier_auth.service import Users
from espalier_common.db import Database


def prepare(
    database: Database, *, keys: SigningKeys, users: Users, passwords: Passwords, first_admin: FirstAdmin
) -> None:
    """Opens or makes the signing key, creates the first administrator. Raises SettingsError when it cannot."""
    keys.load()
    with database.transaction() as session:
        first_admin.ensure(session, users=users, passwords=passwords)
