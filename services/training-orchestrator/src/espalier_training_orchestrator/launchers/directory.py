"""The directory of a launch: the only memory that the local launcher has."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from espalier_training_orchestrator.launchers.errors import LaunchDiskFull, LaunchFailed
from espalier_training_orchestrator.launchers.process import ProcessIdentity
from espalier_training_orchestrator.spec import WorkKind

_TAIL_LINES = 30
_TAIL_BYTES = 16_384


@dataclass(frozen=True, kw_only=True)
class Submission:
    """`submitted.json`: the intent, written before the start, and what the start gave."""

    name: str
    kind: str
    port: int | None = None
    health_path: str | None = None
    pid: int | None = None
    ticks: int | None = None
    """Start time of the process in clock ticks since boot."""
    started: float | None = None
    """Unix seconds."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process that was started; None when we were gone before we could write it down."""
        return ProcessIdentity(self.pid, self.ticks) if self.pid is not None and self.ticks is not None else None


class LaunchDirectory:
    """Reads and writes the files of one launch."""

    def __init__(self, path: str | Path, kind: str) -> None:
        self.path = Path(path)
        is_server = kind == WorkKind.SERVER
        self.lock = self.path / ("server.lock" if is_server else "runner.lock")
        self.own_log = self.path / "logs" / ("server.log" if is_server else "runner.log")
        self.stop = self.path / "stop"
        self.cancelled = self.path / "cancelled"
        """Its end was asked for: then the end is no accident."""

    def write_files(self, files: Mapping[str, str]) -> None:
        """Writes the files of the spec, mode 600. Raises LaunchDiskFull or LaunchFailed."""
        try:
            for name, text in files.items():
                _write(self.path / name, text)
        except OSError as error:
            raise _launch_error(error, self.path) from error

    def make(self) -> None:
        """Makes the directory and that of the logs. Raises LaunchDiskFull or LaunchFailed."""
        try:
            self.own_log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _launch_error(error, self.path) from error

    def record(self, submission: Submission) -> None:
        """Writes `submitted.json` atomically. Raises LaunchDiskFull or LaunchFailed."""
        try:
            _write(self.path / "submitted.json", json.dumps(asdict(submission), indent=1))
        except OSError as error:
            raise _launch_error(error, self.path) from error

    def result(self) -> Mapping[str, Any] | None:
        """Content of `result.json`; None when the attempt left none; empty when it is not to be read."""
        return _read_json(self.path / "result.json")

    def last_sign(self) -> datetime | None:
        """When it left its result, or else signed its lock anew for the last time, as it does while it lives."""
        for file in (self.path / "result.json", self.lock):
            try:
                return datetime.fromtimestamp(file.stat().st_mtime, UTC)
            except OSError:
                continue
        return None

    def runner_wrote_lock(self) -> bool:
        """Whether a runner has ever got so far as to write itself into its lock."""
        try:
            return self.lock.stat().st_size > 0
        except OSError:
            return False

    def log_of(self, rank: int) -> Path:
        """Log of a rank; -1 is the runner's or server's own."""
        return self.own_log if rank < 0 else self.path / "logs" / f"rank-{rank}.log"

    def log_tail(self) -> tuple[str, ...]:
        """Last lines of the log that most likely tells why: rank 0's where there is one, else the own."""
        for path in (self.log_of(0), self.own_log):
            lines = tail(path)
            if lines:
                return lines
        return ()


def read_submission(path: str | Path) -> Submission | None:
    """What was submitted in that directory; None when nothing was."""
    content = _read_json(Path(path) / "submitted.json")
    if not content:
        return None
    known = Submission.__dataclass_fields__
    return Submission(**{name: value for name, value in content.items() if name in known})


def tail(path: Path) -> tuple[str, ...]:
    """Last lines of a log file; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line for line in lines if line.strip())[-_TAIL_LINES:]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _launch_error(error: OSError, path: Path) -> LaunchDiskFull | LaunchFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LaunchDiskFull(f"There is no space left for {path}; free some, then try again.")
    return LaunchFailed(f"The files of the launch cannot be written to {path}: {error.strerror}.")
