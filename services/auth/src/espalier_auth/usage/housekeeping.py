"""Forgets reservations that are long over."""

import asyncio

from espalier_auth.usage.service import forget_expired
from espalier_common.db import Database
from espalier_common.telemetry import get_logger

INTERVAL = 3600.0  # seconds

_log = get_logger(__name__)


class UsageHousekeeping:
    """Once an hour."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Runs as long as the process."""
        while True:
            await asyncio.to_thread(self._forget)
            await asyncio.sleep(INTERVAL)

    def _forget(self) -> None:
        with self._database.transaction() as session:
            forget_expired(session)
        _log.debug("expired reservations forgotten")
