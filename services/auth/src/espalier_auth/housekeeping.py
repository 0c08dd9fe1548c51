"""Forgets what nobody asks for any more, so that the tables do not grow for ever."""

import asyncio
from datetime import timedelta

from espalier_auth.access.repository import delete_expired_keys
from espalier_auth.keys import SigningKeys
from espalier_auth.registration.repository import delete_overdue
from espalier_auth.service import Sessions
from espalier_auth.throttle.repository import delete_old
from espalier_common.db import Database, utc_now

INTERVAL = 3600.0  # seconds
KEY_ROUND_SECONDS = 60.0
# Kept for a while after their end, so that an administrator can still see why a session ended.
KEPT_AFTER_END = timedelta(days=7)
# A key that has expired is listed for a while, so that its owner sees why his program is refused.
KEYS_KEPT = timedelta(days=30)


class KeyRotation:
    """Lets the signing keys grow old and be followed, looking once a minute."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    async def run(self) -> None:
        """Runs as long as the process."""
        while True:
            await asyncio.to_thread(self._keys.rotate)
            await asyncio.sleep(KEY_ROUND_SECONDS)


class Housekeeping:
    """Deletes ended sessions, expired refresh tokens, invitations, links and API keys once an hour."""

    def __init__(self, database: Database, sessions: Sessions) -> None:
        self._database = database
        self._sessions = sessions

    async def run(self) -> None:
        """Runs as long as the process."""
        while True:
            await asyncio.to_thread(self._forget)
            await asyncio.sleep(INTERVAL)

    def _forget(self) -> None:
        with self._database.transaction() as session:
            delete_old(session, utc_now())
            delete_overdue(session, utc_now())
            delete_expired_keys(session, utc_now() - KEYS_KEPT)
            self._sessions.forget_ended(session, ended_for=KEPT_AFTER_END)
