"""Processes by an identity that a reused id cannot fake, and whole sessions of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Of the launcher's own environment a launch gets these and no more: no secret of the service travels along.
_INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("LD_LIBRARY_PATH", "CC", "CXX", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "TORCH_EXTENSIONS_DIR"),
    *("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"),
)


@dataclass(frozen=True)
class ProcessIdentity:
    """A process id with its start time in clock ticks since boot: together they name one process for ever."""

    pid: int
    ticks: int

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a running process; None when there is none or it is a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid=pid, ticks=int(fields[19]))


def start_detached(
    command: tuple[str, ...],
    *,
    directory: Path,
    env: Mapping[str, str],
    log: int,
    inherit: int,
    on_exit: Callable[[int], None],
) -> int:
    """Starts a process in a session of its own that outlives us; returns its id.

    `inherit` stays open in it; `on_exit` hears its exit code (negative: a signal) while we live. Raises OSError.
    """
    child = subprocess.Popen(
        command,
        cwd=directory,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=(inherit,),
    )
    # Somebody has to wait for the child, or it stays a zombie for as long as we live.
    threading.Thread(target=lambda: on_exit(child.wait()), name=f"wait-{child.pid}", daemon=True).start()
    return child.pid


def minimal_environment(interpreter: str) -> dict[str, str]:
    """What a launch gets of our environment, with the interpreter's own programs (ninja, …) found first."""
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env["PATH"] = os.pathsep.join([str(Path(interpreter).parent), env.get("PATH", os.defpath)])
    env.setdefault("LANG", "C.UTF-8")
    return env


def ask_to_end(identity: ProcessIdentity) -> None:
    """Sends SIGTERM unless the process is gone."""
    if identity.is_alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGTERM)


def kill_session(leader: int) -> None:
    """Kills every process of the session, the leader first so that it can start no more.

    Call it only while something of the session is known to live: then the kernel has not given the number away.
    """
    members = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if session_of(pid) == leader]  # noqa: PTH208
    for pid in sorted(members, key=lambda pid: pid != leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def session_of(pid: int) -> int | None:
    """Id of the leader of the process's session; None when there is no such process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[3])


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and up of /proc/<pid>/stat: state, parent, group, session, …, 22 = start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold anything, brackets and spaces included.
    return text.rpartition(")")[2].split()
