"""The lock of an attempt or a server: who holds it is the only one that runs here.

A launcher that already took it hands the open file over (ESPALIER_LOCK_FD); otherwise the process takes it itself.
Ranks inherit it, so that it falls only when the last of them is gone. While its holder lives, the time of the file is
set anew each second: after a death that nobody saw it says when that was.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

LOCK_FD_VARIABLE = "ESPALIER_LOCK_FD"

# Somebody who only looks whether it is held holds it, shared, for microseconds.
_TRIES = 20
_PAUSE = 0.02
_SIGN_SECONDS = 1.0


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
            threading.Thread(target=_sign_of_life, args=(descriptor,), name="lock", daemon=True).start()
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


def _sign_of_life(descriptor: int) -> None:
    """Until the process ends, or somebody closes the lock."""
    mine = os.fstat(descriptor)
    while True:
        time.sleep(_SIGN_SECONDS)
        try:
            if not os.path.samestat(os.fstat(descriptor), mine):
                return  # the number has been given to another file
            os.utime(descriptor)
        except OSError:
            return
