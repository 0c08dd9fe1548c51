"""The log of one rank: output turned into lines, kept on disk up to a size, its end kept in memory."""

from __future__ import annotations

import errno
import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 64 << 20
"""What a log may take on disk; what comes later is dropped, with a line that says so."""
TAIL_LINES = 100
_MAX_LINE = 16 << 10
_PROGRESS_SECONDS = 1.0
_ENDS = re.compile(rb"\r\n|\n|\r")


class LineCutter:
    """Turns output into lines. A progress bar that redraws itself with carriage returns becomes a line a second.

    Colours and other escape sequences stay as they are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest = b""
        self._drawn = b""
        self._drawn_at = float("-inf")

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete with this piece, without their ends."""
        buffer = self._rest + data
        lines: list[bytes] = []
        start = 0
        for end in _ENDS.finditer(buffer):
            if end.group() == b"\r" and end.end() == len(buffer):
                break  # half of \r\n, perhaps
            text = buffer[start : end.start()]
            start = end.end()
            if end.group() != b"\r":
                lines.append(text or self._drawn)
                self._drawn = b""
            elif text:
                lines += self._draw(text)
        self._rest = buffer[start:]
        while len(self._rest) > _MAX_LINE:
            lines.append(self._rest[:_MAX_LINE])
            self._rest = self._rest[_MAX_LINE:]
        return lines

    def close(self) -> list[bytes]:
        """What is left without an end."""
        left = self._rest.strip(b"\r\n") or self._drawn
        self._rest = self._drawn = b""
        return [left] if left else []

    def _draw(self, text: bytes) -> list[bytes]:
        now = self._clock()
        if now - self._drawn_at < _PROGRESS_SECONDS:
            self._drawn = text
            return []
        self._drawn_at, self._drawn = now, b""
        return [text]


class RankLog:
    """Writes what a rank says. A full disk never stops the reading: a rank must not block on its own output."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.disk_full = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._max_bytes = max_bytes
        self._written = 0
        self._cutter = LineCutter()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def feed(self, data: bytes) -> None:
        """Takes the next piece of output."""
        self._write(self._cutter.feed(data))

    def close(self) -> None:
        """Writes what is left and closes the file."""
        self._write(self._cutter.close())
        self._file.close()

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self.tail.extend(line.decode("utf-8", errors="replace") for line in lines)
        if self._written >= self._max_bytes:
            return
        data = b"".join(line + b"\n" for line in lines)
        self._written += len(data)
        if self._written >= self._max_bytes:
            data += f"[the log has reached {self._max_bytes} bytes; nothing more is kept]\n".encode()
        try:
            self._file.write(data)
        except OSError as error:
            self.disk_full = self.disk_full or error.errno in (errno.ENOSPC, errno.EDQUOT)
