"""What must be there before auth answers anybody: a key to sign with, and somebody who can sign in."""

from espalier_auth.events import record_user_changed
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.keys import SigningKeys
from espalier_auth.passwords import Passwords
from espalier_common.db import Database


def prepare(*, database: Database, keys: SigningKeys, passwords: Passwords, first_admin: FirstAdmin) -> None:
    """Opens or makes the signing key, creates the first administrator. Raises SettingsError when it cannot."""
    keys.load()
    with database.transaction() as session:
        if admin := first_admin.ensure(session, passwords):
            record_user_changed(session, admin, changed_by="")
