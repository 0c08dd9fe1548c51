"""Reads logs by byte offset out of the stored pieces, in whole lines."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from espalier_training_orchestrator.runs.models import Attempt
from espalier_training_orchestrator.telemetry import repository

DEFAULT_LIMIT = 65_536
MAX_LIMIT = 1_048_576


@dataclass(frozen=True, kw_only=True)
class LogPiece:
    """Bytes of a log from `offset` to `next_offset`; `end` says that the log is complete and this is its end."""

    offset: int
    next_offset: int
    data: bytes
    end: bool

    @property
    def text(self) -> str:
        """The bytes as text; what is no UTF-8 is replaced, and so is NUL, which no JSON reader likes."""
        return self.data.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def read_log(session: Session, attempt: Attempt, *, rank: int, offset: int, limit: int) -> LogPiece:
    """A piece from the offset on."""
    over = attempt.ended_at is not None
    limit = min(limit or DEFAULT_LIMIT, MAX_LIMIT)
    start, data = _assemble(session, attempt, rank=rank, offset=offset, limit=limit, over=over)
    size = repository.log_size(session, attempt.run_id, attempt.number, rank=rank)
    full = len(data) >= limit and start + len(data) < size
    if full or not over:
        data = data[: _line_end(data, full=full)]
    next_offset = start + len(data)
    return LogPiece(offset=start, next_offset=next_offset, data=data, end=over and next_offset >= size)


def read_log_tail(session: Session, attempt: Attempt, *, rank: int, back: int, limit: int) -> LogPiece:
    """The last bytes that end `back` bytes before the end, from the beginning of a line on."""
    size = repository.log_size(session, attempt.run_id, attempt.number, rank=rank)
    limit = min(limit or DEFAULT_LIMIT, MAX_LIMIT)
    end = max(0, size - back)
    start = max(0, end - limit)
    piece = read_log(session, attempt, rank=rank, offset=start, limit=max(1, end - start))
    if not start:
        return piece
    skipped = piece.data.find(b"\n") + 1
    return LogPiece(
        offset=piece.offset + skipped, next_offset=piece.next_offset, data=piece.data[skipped:], end=piece.end
    )


def _assemble(
    session: Session, attempt: Attempt, *, rank: int, offset: int, limit: int, over: bool
) -> tuple[int, bytes]:
    """Bytes without a hole; one at the very start is skipped once nothing can fill it any more."""
    chunks = repository.log_chunks(
        session, attempt.run_id, attempt.number, rank=rank, offset=offset, end=offset + limit
    )
    start = max(offset, chunks[0].offset) if chunks and over else offset
    data = bytearray()
    for chunk in chunks:
        position = start + len(data)
        if chunk.offset > position:
            break
        if chunk.end > position:
            data += chunk.data[position - chunk.offset :]
    return start, bytes(data[:limit])


def _line_end(data: bytes, *, full: bool) -> int:
    """Where the last whole line ends; a line longer than the whole piece is cut between two characters."""
    end = data.rfind(b"\n") + 1
    return end if end or not full else len(data) - _torn_bytes(data)


def _torn_bytes(data: bytes) -> int:
    """Bytes at the end that are the beginning of a UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if length > back else 0
    return 0
