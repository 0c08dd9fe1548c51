"""The runners of training runs on this machine: who lives, and how they are asked to save and end."""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAVE_SECONDS = 120.0


@dataclass(frozen=True)
class LivingProcess:
    """A process that holds the lock of its directory: an attempt of a run, or a model server."""

    name: str
    directory: Path
    lock: Path
    pid: int

    def is_alive(self) -> bool:
        """The lock tells: the kernel releases it when the last of its holders dies, however they die."""
        return holder(self.lock) is not None


@dataclass(frozen=True)
class Ended:
    """How a training ended when it was asked to."""

    run_id: str
    message: str


def living_runners(artifacts: Path) -> list[LivingProcess]:
    """The runners that live now, of all runs."""
    return list(_living(artifacts, "runs/*/attempts/*/runner.lock", name=lambda lock: lock.parts[-4]))


def living_servers(artifacts: Path) -> list[LivingProcess]:
    """The model servers that live now."""
    return list(_living(artifacts, "workloads/*/server.lock", name=lambda lock: lock.parts[-2]))


def _living(artifacts: Path, pattern: str, *, name: Callable[[Path], str]) -> Iterator[LivingProcess]:
    for lock in sorted(artifacts.glob(pattern)):
        pid = holder(lock)
        if pid is not None:
            yield LivingProcess(name(lock), lock.parent, lock, pid)


def holder(lock: Path) -> int | None:
    """Process id of who holds a lock file; None when nobody does."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_beside(lock)
    except FileNotFoundError:
        pass
    return None


def _pid_beside(lock: Path) -> int | None:
    """The leader's process id: the launcher writes it down, and a runner writes it into its lock."""
    for file in (lock.with_name("submitted.json"), lock):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(file.read_text("utf-8"))["pid"])
    return None


def save_and_end(runners: list[LivingProcess], *, seconds: float = SAVE_SECONDS) -> list[Ended]:
    """Asks runners to save and end, and waits. One that is late is killed; its last checkpoint stays."""
    for runner in runners:
        if not (runner.directory / "stop").exists():  # asked already; a second SIGTERM would mean "at once"
            _signal(runner.pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    ended = []
    for runner in runners:
        if _wait(runner, end):
            ended.append(Ended(runner.name, _told(_result(runner.directory))))
        else:
            kill(runner)
            ended.append(Ended(runner.name, f"did not end within {seconds:g} s and was killed"))
    return ended


def end_servers(servers: list[LivingProcess], *, seconds: float = 10.0) -> None:
    """Ends model servers; they hold no state."""
    for server in servers:
        _signal(server.pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    for server in servers:
        if not _wait(server, end):
            kill(server)


def kill(process: LivingProcess) -> None:
    """Kills a process with all of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        _signal(process.pid, signal.SIGKILL)


def _wait(process: LivingProcess, end: float) -> bool:
    while process.is_alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _result(directory: Path) -> dict[str, Any]:
    try:
        result = json.loads((directory / "result.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}


def _told(result: dict[str, Any]) -> str:
    if result.get("checkpoint"):
        return f"saved at step {result.get('step')} and ended; `espalier runs resume` goes on from there"
    return str(result.get("message") or "ended without a checkpoint")
