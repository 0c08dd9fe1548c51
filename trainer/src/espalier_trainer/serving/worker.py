"""The one thread that loads the model and then answers, one request after the other."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from espalier_trainer.errors import TrainerError
from espalier_trainer.serving.errors import ApiError, shutting_down, still_loading, too_many_waiting
from espalier_trainer.serving.model import Finish, Sampling, ServedModel

MAX_WAITING = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """What an answer took, whether or not anybody read it; nothing where it never began."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Answer:
    """One answer in the making: a stream of pieces, the last of which is the `Finish`."""

    prompt: list[int]
    sampling: Sampling
    _loop: asyncio.AbstractEventLoop
    _pieces: asyncio.Queue[str | Finish | ApiError] = field(default_factory=asyncio.Queue)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.used: asyncio.Future[Used] = self._loop.create_future()
        self.has_begun = False

    @property
    def is_cancelled(self) -> bool:
        """Nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ends it at the next token; harmless when it is over. Call in the event loop."""
        self._cancelled.set()
        # The worker looks the other way round: it says that it begins, then looks whether it should.
        if not self.has_begun:
            self._settle(Used())

    async def pieces(self) -> AsyncIterator[str | Finish]:
        """All that is ready at a time as one piece of text; at the end the Finish. Raises ApiError."""
        while True:
            found = [await self._pieces.get()]
            while not self._pieces.empty():
                found.append(self._pieces.get_nowait())
            if text := "".join(piece for piece in found if isinstance(piece, str)):
                yield text
            last = found[-1]
            if isinstance(last, ApiError):
                raise last
            if isinstance(last, Finish):
                yield last
                return

    def put(self, piece: str | Finish | ApiError) -> None:
        """From the worker's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def end(self, used: Used) -> None:
        """From the worker's thread: it is over, and took this."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, used)

    def _settle(self, used: Used) -> None:
        if not self.used.done():
            self.used.set_result(used)


class Worker:
    """Owns the model. `load` runs in its thread; `on_failure` hears, there too, why it could not."""

    def __init__(self, load: Callable[[], ServedModel], *, on_failure: Callable[[str], None]) -> None:
        self._load = load
        self._on_failure = on_failure
        self._model: ServedModel | None = None
        self._waiting: queue.Queue[Answer | None] = queue.Queue()
        self._current: Answer | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    @property
    def model(self) -> ServedModel:
        """The model. Raises ApiError while it is being loaded."""
        if self._model is None:
            raise still_loading()
        return self._model

    @property
    def is_ready(self) -> bool:
        """The model is in memory."""
        return self._model is not None and not self._closing

    def start(self) -> None:
        """Begins to load."""
        self._thread.start()

    def submit(self, prompt: list[int], sampling: Sampling) -> Answer:
        """Queues an answer. Call in the event loop. Raises ApiError when the queue is full."""
        if self._closing:
            raise shutting_down()
        if self._waiting.qsize() >= MAX_WAITING:
            raise too_many_waiting(MAX_WAITING)
        answer = Answer(prompt, sampling, asyncio.get_running_loop())
        self._waiting.put(answer)
        return answer

    def close(self, seconds: float) -> bool:
        """Ends what is under way and waits that long for the thread; False when it still runs (it loads)."""
        self._closing = True
        current = self._current
        if current is not None:
            current.cancel()
        self._waiting.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._model = self._load()
        except TrainerError as error:
            self._on_failure(str(error))
            return
        except Exception as error:
            _log.exception("the model cannot be loaded")
            self._on_failure(f"the model cannot be loaded: {type(error).__name__}: {error}")
            return
        _log.info("the model is ready: context of %d tokens, on %s", self._model.context, self._model.device)
        while (answer := self._waiting.get()) is not None:
            answer.has_begun = True
            if self._closing:
                answer.put(shutting_down())
            elif answer.is_cancelled:
                answer.end(Used())
            else:
                self._current = answer
                answer.end(self._make(answer, self._model))
                self._current = None

    def _make(self, answer: Answer, model: ServedModel) -> Used:
        completion_tokens = 0
        try:
            for piece in model.answer(answer.prompt, answer.sampling, is_cancelled=lambda: answer.is_cancelled):
                if isinstance(piece, Finish):
                    completion_tokens = piece.completion_tokens
                cut_off = isinstance(piece, Finish) and piece.reason == "cancelled"
                answer.put(shutting_down() if cut_off else piece)
        except Exception as error:
            _log.exception("an answer failed")
            out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            message = "Memory ran out; shorten the messages." if out_of_memory else "The model failed; see its log."
            answer.put(ApiError(message, status=500, code="generation_failed"))
        return Used(len(answer.prompt), completion_tokens)
