"""Detached processes on one machine: started with a pid file, found again by pid and creation time, and stopped.

The pid alone proves nothing: it is reused after a while or after a reboot. Together with the creation time it does.
"""

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

MAX_LOG_BYTES = 20 << 20
FREE_RANGE = range(10_000, 18_000)
"""Of `free_port`: below those of outgoing connections, and none of those that trainings and platforms choose."""


class ProcessError(Exception):
    """A process could not be started or did not become ready; the message says why and where its log is."""


class PortTaken(ProcessError):
    """Somebody else listens on the port."""

    def __init__(self, port: int, setting: str) -> None:
        super().__init__(f"Port {port} is taken by another program; stop it or set {setting} to a free port.")
        self.port = port
        self.setting = setting


@dataclass(frozen=True)
class ProcessRecord:
    """Content of a pid file. `created` is the creation time in unix seconds; `extra` belongs to the caller."""

    pid: int
    created: float
    argv: list[str]
    extra: dict[str, Any] = field(default_factory=dict)


def start(
    argv: Sequence[str],
    *,
    pid_file: Path,
    log_file: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> ProcessRecord:
    """Starts a process in a session of its own, its output appended to `log_file`, and records it in `pid_file`.

    `env` replaces the environment. `user` needs root. It outlives the caller. Raises ProcessError when it cannot start.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    _rotate(log_file)
    try:
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                as_user(argv, user),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
    except OSError as error:
        raise ProcessError(f"Cannot start {argv[0]}: {error.strerror or error}.") from error
    record = ProcessRecord(process.pid, psutil.Process(process.pid).create_time(), list(argv), dict(extra or {}))
    write_record(pid_file, record)
    # The child is ours until we exit; without this Popen warns about it when it is collected.
    process.returncode = 0
    return record


# setgroups, setgid, setuid, exec; -I and -S keep the interpreter's own start at 10 ms and free of surprises.
_BECOME = "import os, sys; u, g = map(int, sys.argv[1:3]); os.setgroups([]); os.setgid(g); os.setuid(u); "
_BECOME += "os.execv(sys.argv[3], sys.argv[3:])"


def as_user(argv: Sequence[str], user: str | None) -> list[str]:
    """The command that runs `argv` (an absolute path first) as another user; needs root. Unchanged without a user.

    Not by `subprocess`'s own `user`: that forks, and gRPC's fork handlers crash the child of a process that uses gRPC.
    """
    if user is None:
        return list(argv)
    import pwd

    account = pwd.getpwnam(user)
    return [sys.executable, "-ISc", _BECOME, str(account.pw_uid), str(account.pw_gid), *argv]


def write_record(pid_file: Path, record: ProcessRecord) -> None:
    """Writes the pid file so that a reader never sees half of it."""
    temporary = pid_file.with_suffix(f".tmp-{os.getpid()}")
    temporary.write_text(json.dumps(asdict(record)))
    temporary.replace(pid_file)


def read_record(pid_file: Path) -> ProcessRecord | None:
    """The record of the pid file; None when there is none or it is unreadable."""
    try:
        return ProcessRecord(**json.loads(pid_file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_alive(record: ProcessRecord | None) -> bool:
    """True when exactly this process runs: same pid, same creation time, no zombie."""
    return _process(record) is not None


def stop(
    record: ProcessRecord | None,
    *,
    deadline: float = 10.0,
    first: signal.Signals = signal.SIGTERM,
    group: bool = True,
) -> bool:
    """Sends `first`, waits up to `deadline` seconds, then kills the whole process group. False when nothing ran."""
    process = _process(record)
    if process is None:
        return False
    _quietly(lambda: process.send_signal(first))
    if not _ended(process, deadline):
        _quietly(lambda: os.killpg(process.pid, signal.SIGKILL) if group else process.kill())
        _ended(process, 5.0)
    return True


def wait_until(ready: Callable[[], bool], *, record: ProcessRecord, deadline: float, what: str, log_file: Path) -> None:
    """Polls `ready` until it gives True. Raises ProcessError when the process dies or `deadline` seconds are over."""
    end = time.monotonic() + deadline
    pause = 0.01
    while not ready():
        if not is_alive(record):
            raise ProcessError(f"{what} ended while starting. The end of its log {log_file}:\n{tail(log_file)}")
        if time.monotonic() > end:
            raise ProcessError(f"{what} was not ready after {deadline:g} s. The end of {log_file}:\n{tail(log_file)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def tail(log_file: Path, lines: int = 10) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment. Raises ProcessError when none is found.

    It is below those that systems give to outgoing connections, so that none of these takes it before it is used, and
    chosen by chance, so that two processes that look at the same time find different ones.
    """
    for port in random.SystemRandom().sample(FREE_RANGE, 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            return port
    raise ProcessError(f"No free port was found between {FREE_RANGE.start} and {FREE_RANGE.stop - 1}.")


def require_free_port(port: int, *, setting: str, host: str = "127.0.0.1") -> None:
    """Raises PortTaken, naming the setting that changes the port, when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(port, setting) from error
            raise ProcessError(f"Cannot use port {port}: {error.strerror}; set {setting} to another port.") from error


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """True when something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def _process(record: ProcessRecord | None) -> psutil.Process | None:
    if record is None:
        return None
    _reap(record.pid)
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.created) > 1.0 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def _reap(pid: int) -> None:
    """Takes a dead child of our own out of the process table."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _ended(process: psutil.Process, deadline: float) -> bool:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        _reap(process.pid)
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def _quietly(call: Callable[[], object]) -> None:
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        call()


def _rotate(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > MAX_LOG_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
