"""Removes uploads of which no dataset was made: begun and never finished, or finished and forgotten."""

import asyncio
from datetime import timedelta

from espalier_common.db import Database, utc_now
from espalier_common.telemetry import get_logger
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.datasets import repository

INTERVAL = 3600.0  # seconds

_log = get_logger(__name__)


class UploadHousekeeping:
    """Looks once an hour for uploads that nobody wrote to for `kept`."""

    def __init__(self, database: Database, *, uploads: UploadStore, kept: timedelta) -> None:
        self._database = database
        self._uploads = uploads
        self._kept = kept

    async def run(self) -> None:
        """Runs as long as the process."""
        while True:
            try:
                await asyncio.to_thread(self.remove_unused)
            except Exception:
                # The store or the database is away; the next round is soon enough.
                _log.exception("unused uploads could not be removed")
            await asyncio.sleep(INTERVAL)

    def remove_unused(self) -> int:
        """Removes them; gives their number."""
        since = utc_now() - self._kept
        found = self._uploads.untouched(since=since)
        if not found:
            return 0
        with self._database.transaction() as session:
            in_use = repository.uploads_in_use(session)
        removed = [
            upload_id
            for upload_id in found
            if upload_id not in in_use and self._uploads.delete_untouched(upload_id, since=since)
        ]
        if removed:
            _log.info("unused uploads removed", count=len(removed))
        return len(removed)
