"""The lock that says whether a launch lives.

The launcher takes it and the child inherits it (variable ESPALIER_LOCK_FD), so it is held from the child's first
moment to the death of the last of its ranks, which inherit it in turn. No crash leaves a gap in which a second start
could slip in, and the kernel lets it go when nothing of the launch is left.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOCK_FD_VARIABLE = "ESPALIER_LOCK_FD"

# A look at the lock holds it, shared, for microseconds; a claim must not mistake that for a living launch.
_CLAIM_TRIES = 10
_CLAIM_PAUSE = 0.01


def claim(path: Path) -> int | None:
    """Takes the lock and returns its file descriptor; None when somebody holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_CLAIM_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_CLAIM_PAUSE)
        else:
            return descriptor
    os.close(descriptor)
    return None


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holders(path: Path) -> list[int]:
    """Ids of the processes that hold the lock, without this one. Walks /proc: for when no id was written down."""
    target = str(path.resolve())
    return [pid for pid in _process_ids() if pid != os.getpid() and _holds(pid, target)]


def _process_ids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - thousands of entries


def _holds(pid: int, target: str) -> bool:
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            # The kernel lists the locks of each open file; a mere look at it holds none that says WRITE.
            about = Path(f"/proc/{pid}/fdinfo/{entry.name}")
            if str(entry.readlink()) == target and "FLOCK  ADVISORY  WRITE" in about.read_text("utf-8"):
                return True
    except OSError:  # it ended meanwhile, or belongs to another user
        return False
    return False
