"""The lock of an attempt or a server: who holds it is the only one that runs here.

A launcher that already took it hands the open file over (ESPALIER_LOCK_FD); otherwise the process takes it itself.
Ranks inherit it, so that it falls only when the last of them is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

LOCK_FD_VARIABLE = "ESPALIER_LOCK_FD"

# Somebody who only looks whether it is held holds it, shared, for microseconds.
_TRIES = 20
_PAUSE = 0.02


def take_lock(path: Path, env: Mapping[str, str]) -> int | None:
    """File descriptor of the lock, now ours; None when another process holds it."""
    descriptor = _handed_over(path, env)
    if descriptor is None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            _sign(descriptor)
            return descriptor
    os.close(descriptor)
    return None


def _handed_over(path: Path, env: Mapping[str, str]) -> int | None:
    number = env.get(LOCK_FD_VARIABLE, "")
    if not number.isdigit():
        return None
    try:
        given, wanted = os.fstat(int(number)), path.stat()
    except OSError:
        return None
    return int(number) if (given.st_dev, given.st_ino) == (wanted.st_dev, wanted.st_ino) else None


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "time": time.time()}).encode(), 0)
