"""Lines of a file of any size, read with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from espalier_data.errors import UnreadableFile

MAX_LINE_BYTES = 8 * 1024 * 1024
"""A longer line is a finding, not a row: no honest example is 8 MiB, and memory stays bounded."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its line end; `content` is None when the line is longer than the limit."""

    number: int
    content: bytes | None
    size: int

    @property
    def is_blank(self) -> bool:
        """Nothing but white space."""
        return self.content is not None and not self.content.strip()


def read_lines(path: Path, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yields every line of the file; a UTF-8 byte order mark at its start is taken off.

    Raises UnreadableFile when the file cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            yield from _lines(file, max_bytes)
    except OSError as error:
        raise UnreadableFile(f"{path.name}: {error.strerror or error}") from error


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[Line]:
    number = 0
    while chunk := file.readline(max_bytes + 2):
        number += 1
        if number == 1:
            chunk = chunk.removeprefix(_BOM)
        if chunk.endswith(b"\n") or len(chunk) <= max_bytes:
            content = chunk.removesuffix(b"\n").removesuffix(b"\r")
            yield Line(number=number, content=content, size=len(content))
        else:
            yield Line(number=number, content=None, size=len(chunk) + _skip_line(file))


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
