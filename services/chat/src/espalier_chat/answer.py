"""One answer while it is generated: the text so far, and the readers who take it up, each at its own pace.

Lives on the event loop. Nothing waits for a reader: whatever lies beyond a reader's offset goes out in one piece, so
one that is slow gets bigger pieces and slows itself alone.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import Enum

from espalier_chat.chunks import Piece
from espalier_chat.errors import UpstreamError
from espalier_chat.models import Message, MessageState, Outcome, Progress
from espalier_chat.service import tokens_used

MAX_PIECE_CHARACTERS = 1 << 18  # at four bytes each a MiB, well below what one gRPC message may carry


class StopCause(Enum):
    """Why an answer was ended before the model ended it, as the reader is told."""

    ASKED = "Stopped on request."
    LEFT = "Stopped because nobody was reading any more."
    RESTART = "The chat service was restarted while the answer was generated; this is the text until then."


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of an answer; `offset` is the number of characters up to its end. `message` stands in the last one."""

    offset: int
    text: str = ""
    message: Message | None = None


class Text:
    """Text that grows by pieces and is read from any offset. Offsets count characters."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def append(self, piece: str) -> None:
        self._ends.append(len(self) + len(piece))
        self._pieces.append(piece)

    def whole(self) -> str:
        """All of it; joins the pieces, so that the next reader from the beginning finds one."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
            self._ends = [len(self._pieces[0])]
        return self._pieces[0] if self._pieces else ""

    def beyond(self, offset: int, limit: int) -> str:
        """Up to `limit` characters after the offset; empty when there is nothing yet."""
        found, length = [], 0
        for index in range(bisect_right(self._ends, offset), len(self._pieces)):
            piece = self._pieces[index]
            start = self._ends[index] - len(piece)
            found.append(piece[max(offset - start, 0) :] if start < offset else piece)
            length += len(found[-1])
            if length >= limit:
                break
        return "".join(found)[:limit]


class Answer:
    """The answer of one message. `linger` in seconds is how long it goes on without readers."""

    def __init__(self, message_id: str, *, linger: float, max_bytes: int) -> None:
        self.message_id = message_id
        self.text = Text()
        self.saved_length = 0
        self.final: Message | None = None
        self.stop_cause: StopCause | None = None
        self._linger = linger
        self._max_bytes = max_bytes
        self._bytes = 0
        self._readers = 0
        self._leave_timer: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._cancel: Callable[[], object] = _nothing
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._first_token: float | None = None
        self._last = Piece()
        self._pieces = 0
        self._asked_characters = 0

    def take(self, piece: Piece) -> None:
        """Adds what the model server sent. Raises UpstreamError beyond the greatest length."""
        self._last = Piece(
            finish_reason=piece.finish_reason or self._last.finish_reason,
            prompt_tokens=self._last.prompt_tokens if piece.prompt_tokens is None else piece.prompt_tokens,
            completion_tokens=(
                self._last.completion_tokens if piece.completion_tokens is None else piece.completion_tokens
            ),
        )
        if not piece.text:
            return
        self._pieces += 1
        self._bytes += len(piece.text.encode())
        if self._bytes > self._max_bytes:
            raise UpstreamError(f"The answer grew beyond {self._max_bytes} bytes and was cut there.")
        if self._first_token is None:
            self._first_token = self._loop.time()
        self.text.append(piece.text)
        self._wake()

    def on_stop(self, cancel: Callable[[], object]) -> None:
        """Sets what ends the generation; called at once when the stop came before."""
        self._cancel = cancel
        if self.stop_cause is not None:
            cancel()

    def stop(self, cause: StopCause) -> None:
        """Ends the generation; the first cause counts."""
        if self.stop_cause is None:
            self.stop_cause = cause
            self._cancel()

    def asked(self, characters: int) -> None:
        """A conversation of this length goes to the model server."""
        self._asked_characters = characters

    @property
    def lacks_use(self) -> bool:
        """Whether the model server has not told what the answer used."""
        return self._last.prompt_tokens is None or self._last.completion_tokens is None

    def learn_use(self, used: tuple[int, int]) -> None:
        """The model server told later: tokens of prompt and answer."""
        self._last = replace(self._last, prompt_tokens=used[0], completion_tokens=used[1])

    def progress(self) -> Progress:
        """How far it is."""
        used = self._used()
        return Progress(
            message_id=self.message_id, text=self.text.whole(), prompt_tokens=used[0], completion_tokens=used[1]
        )

    def _used(self) -> tuple[int, int]:
        if not self._pieces:
            return self._last.prompt_tokens or 0, self._last.completion_tokens or 0
        return tokens_used(
            self._last.prompt_tokens,
            self._last.completion_tokens,
            characters=self._asked_characters,
            pieces=self._pieces,
        )

    def outcome(self, state: MessageState, error: str = "") -> Outcome:
        """What is to be kept, ended in this state now."""
        now = self._loop.time()
        used = self._used()
        return Outcome(
            state=state,
            text=self.text.whole(),
            error=error,
            finish_reason=self._last.finish_reason,
            prompt_tokens=used[0],
            completion_tokens=used[1],
            estimated=self.lacks_use and bool(self._pieces),
            time_to_first_token=0.0 if self._first_token is None else self._first_token - self._started,
            duration=now - self._started,
        )

    def finish(self, message: Message) -> None:
        """The answer is kept: readers get their last piece."""
        self.final = message
        self._set_timer(None)
        self._wake()

    async def finished(self) -> Message:
        """Waits until the answer is kept."""
        while self.final is None:
            await self._changed()
        return self.final

    def attach(self) -> "Reader":
        """A new reader; close it when it goes."""
        self._readers += 1
        self._set_timer(None)
        return Reader(self)

    def detach(self) -> None:
        """A reader went; the last one starts the time that the answer has left."""
        self._readers -= 1
        if self._readers == 0 and self.final is None:
            self._set_timer(self._loop.call_later(self._linger, self.stop, StopCause.LEFT))

    async def read(self, offset: int) -> AsyncIterator[Delta]:
        """What lies beyond the offset, then what comes, then the end."""
        while True:
            if text := self.text.beyond(offset, MAX_PIECE_CHARACTERS):
                offset += len(text)
                yield Delta(offset=offset, text=text)
            elif self.final is not None:
                yield Delta(offset=len(self.text), message=self.final)
                return
            else:
                await self._changed()

    async def _changed(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        await future

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._leave_timer is not None:
            self._leave_timer.cancel()
        self._leave_timer = timer


class Reader:
    """One reader of an answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open = True

    @property
    def message_id(self) -> str:
        """The answer that is read."""
        return self._answer.message_id

    def read(self, offset: int) -> AsyncIterator[Delta]:
        """As `Answer.read`."""
        return self._answer.read(offset)

    def close(self) -> None:
        """Goes; may be called again."""
        if self._open:
            self._open = False
            self._answer.detach()


def _nothing() -> None:
    return None
