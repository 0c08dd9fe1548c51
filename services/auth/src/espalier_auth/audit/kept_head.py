"""The head of the chain kept outside the database, so that a removed end of the log is found.

It is written to `<home>/audit-head`, where there is one, with all that is appended, and every half minute to the log,
whose keeper may be somebody else.
"""

import asyncio
import os
import threading
from pathlib import Path

from espalier_auth.audit import repository
from espalier_auth.audit.models import START, Head
from espalier_auth.audit.service import check_chain
from espalier_common.db import Database
from espalier_common.telemetry import get_logger

INTERVAL = 30.0  # seconds

_log = get_logger(__name__)


class KeptHead:
    """The remembered head; `file` is None where no place is known."""

    def __init__(self, database: Database, file: Path | None) -> None:
        self._database = database
        self._file = file
        self._last: Head | None = None
        self._told: Head | None = None
        self._lock = threading.Lock()

    async def run(self) -> None:
        """Keeps the head for ever."""
        while True:
            await asyncio.to_thread(self.keep)
            await asyncio.sleep(INTERVAL)

    def read(self) -> Head | None:
        """The head that was kept last; None when none was, or the file cannot be read."""
        if self._file is None:
            return self._last
        try:
            return Head.read(self._file.read_text("ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.error("the kept head of the audit log cannot be read", file=str(self._file), error=repr(error))
            return None

    def advance(self, before: Head, after: Head) -> None:
        """Follows what was appended, if it continues what is remembered; `keep` looks into everything else."""
        with self._lock:
            if before != (self.read() or START):
                return
            try:
                self._write(after)
            except OSError as error:
                _log.error("the head of the audit log cannot be kept", file=str(self._file), error=repr(error))
            else:
                self._last = after

    def keep(self) -> None:
        """Remembers the newest event; while the one remembered is gone, keeps that and tells an error."""
        with self._lock:
            self._keep()

    def _keep(self) -> None:
        kept = self.read()
        with self._database.transaction() as session:
            head = repository.find_head(session)
            if not head.sequence and kept is None:
                return
            # The start just before the head: what is older was checked when it was kept.
            finding = check_chain(session, start=head, remembered=kept)
        if finding.broken:
            _log.error("the audit log is broken", sequence=finding.broken, finding=finding.message)
            return
        if head != kept:
            self._write(head)
        if head != self._told:
            _log.info("audit head", head=str(head))
        self._last = self._told = head

    def _write(self, head: Head) -> None:
        if self._file is None:
            return
        temporary = self._file.with_name(f"{self._file.name}.new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{head}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)
