"""The first administrator: made once, when there is no user, so that somebody can let the others in.

His password is generated and written to a file that only the platform's owner reads, or given by
ESPALIER_ADMIN_PASSWORD. It is never logged. The file goes away when he changes the password.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from espalier_auth import repository
from espalier_auth.models import FIRST_ADMIN, User
from espalier_auth.passwords import Passwords
from espalier_auth.roles import ADMIN
from espalier_auth.service import NewUser, Users
from espalier_common.settings import SettingsError
from espalier_common.telemetry import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class FirstAdmin:
    """Where the first administrator's password comes from, or goes to."""

    given_password: str
    file: Path | None

    def ensure(self, session: Session, *, users: Users, passwords: Passwords) -> None:
        """Creates him when there is no user at all.

        The file is written before the transaction commits: a crash between the two leaves a file that the next start
        writes anew, never a user whose password nobody knows.
        """
        repository.lock_start(session)
        if repository.has_users(session):
            self._remove_leftover(session)
            return
        password = self.given_password or secrets.token_urlsafe(18)
        if not self.given_password:
            self._write(password)
        new = NewUser(
            username=FIRST_ADMIN,
            display_name="Administrator",
            roles=[ADMIN],
            password_hash=passwords.hash_now(password),
        )
        users.create(session, new, by=None)
        _log.info(
            "first administrator created", username=FIRST_ADMIN, file=None if self.given_password else str(self.file)
        )

    def forget(self, user: User) -> None:
        """Removes the file once this user has a password of his own."""
        if user.username != FIRST_ADMIN or user.password_change_required or self.file is None:
            return
        try:
            self.file.unlink(missing_ok=True)
        except OSError as error:
            _log.warning(
                "cannot remove the first password's file; remove it by hand", file=str(self.file), error=str(error)
            )

    def _remove_leftover(self, session: Session) -> None:
        # The process may have died between the change of the password and the removal of the file.
        admin = repository.find_user_by_username(session, FIRST_ADMIN)
        if admin is not None:
            self.forget(admin)

    def _write(self, password: str) -> None:
        if self.file is None:
            raise SettingsError(
                "There is no user yet and no place for the first administrator's password: "
                "set ESPALIER_ADMIN_PASSWORD, or ESPALIER_ADMIN_PASSWORD_FILE."
            )
        temporary = self.file.with_name(f"{self.file.name}.new")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{password}\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.file)
        except OSError as error:
            raise SettingsError(
                f"Cannot write the first administrator's password to {self.file}: {error.strerror}. "
                "Make its directory writable, or set ESPALIER_ADMIN_PASSWORD_FILE."
            ) from error
