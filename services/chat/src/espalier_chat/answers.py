"""All answers that this process generates: begins, keeps and stops them, and clears away what dead processes left."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

from espalier_chat.answer import MAX_PIECE_CHARACTERS, Answer, Delta, Reader, StopCause
from espalier_chat.chunks import Piece
from espalier_chat.errors import ChatStopping, UpstreamError
from espalier_chat.keeping import until_stored
from espalier_chat.models import Message, MessageState, Outcome, Progress
from espalier_chat.service import Conversations, Endpoint, Request, Turn
from espalier_chat.settings import ChatSettings
from espalier_common.db import Database
from espalier_common.identity import Principal
from espalier_common.telemetry import get_logger

SAVE_SECONDS = 1.0
SWEEP_EVERY = 5  # rounds of saving between two looks for answers of dead processes
ORPHAN_SILENCE = timedelta(seconds=5)  # living processes touch their answers each second
STOP_PATIENCE = 10.0  # seconds that a stop waits until the answer is kept
DRAIN_SECONDS = 8.0

_log = get_logger(__name__)


Take = Callable[[Piece], None]
"""Gets each piece."""


class Upstream(Protocol):
    """What answers are made with."""

    async def relay(self, endpoint: Endpoint, request: Mapping[str, Any], take: Take, *, request_id: str) -> None:
        """Hands the pieces of a chat completion over as they come. Raises UpstreamError."""

    async def used(self, base_url: str, request_id: str) -> tuple[int, int] | None:
        """Tokens of prompt and answer of a request that was cut; None where the model server does not know."""


class Answers:
    """Lives on the event loop; the database is reached through threads alone."""

    def __init__(
        self, database: Database, *, conversations: Conversations, upstream: Upstream, settings: ChatSettings
    ) -> None:
        self._database = database
        self._conversations = conversations
        self._upstream = upstream
        self._settings = settings
        self._live: dict[str, Answer] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False

    async def begin(self, principal: Principal, request: Request, endpoint: Endpoint) -> Reader:
        """Stores the message and begins the answer; gives its first reader. Goes on when the caller is cancelled."""
        beginning = self._spawn(self._begin(principal, request, endpoint))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_close_reader)
            raise

    def find(self, message_id: str) -> Answer | None:
        """The answer, while this process generates it."""
        return self._live.get(message_id)

    async def follow(
        self, principal: Principal, *, session_id: str, message_id: str, offset: int
    ) -> AsyncIterator[Delta]:
        """An answer of another process, or one that has ended: read from the database until it is complete."""
        while True:
            message = await asyncio.to_thread(self._load, principal, session_id, message_id)
            while text := message.text[offset : offset + MAX_PIECE_CHARACTERS]:
                offset += len(text)
                yield Delta(offset=offset, text=text)
            if message.state is not MessageState.STREAMING:
                yield Delta(offset=len(message.text), message=message)
                return
            await asyncio.sleep(SAVE_SECONDS)

    async def stop(self, principal: Principal, *, session_id: str, message_id: str) -> Message:
        """Stops an answer, wherever it is generated; gives it as it is kept."""
        message = await asyncio.to_thread(self._ask_to_stop, principal, session_id, message_id)
        end = asyncio.get_running_loop().time() + STOP_PATIENCE
        if (answer := self.find(message_id)) is not None:
            answer.stop(StopCause.ASKED)
            try:
                async with asyncio.timeout_at(end):
                    return await answer.finished()
            except TimeoutError:
                return message
        while message.state is MessageState.STREAMING and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.2)
            message = await asyncio.to_thread(self._load, principal, session_id, message_id)
        return message

    async def run(self) -> None:
        """Background task: saves what is there each second, and looks for answers that nobody generates any more."""
        rounds = 0
        while True:
            try:
                await self._save()
                if rounds % SWEEP_EVERY == 0:
                    await asyncio.to_thread(self.cut_orphans, ORPHAN_SILENCE)
            except Exception as error:
                # The text stays in memory and goes with the next round.
                _log.warning("answers could not be saved", error=repr(error))
            rounds += 1
            await asyncio.sleep(SAVE_SECONDS)

    def cut_orphans(self, silent_for: timedelta) -> None:
        """Ends answers that no process has touched for so long. Blocks."""
        with self._database.transaction() as session:
            count = self._conversations.cut_orphans(session, silent_for=silent_for)
        if count:
            _log.info("cut answers of a process that is gone", count=count)

    async def drain(self) -> None:
        """The process is told to stop: every answer is ended and kept as far as it is."""
        self._draining = True
        for answer in list(self._live.values()):
            answer.stop(StopCause.RESTART)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))

    def _is_draining(self) -> bool:
        return self._draining

    async def _begin(self, principal: Principal, request: Request, endpoint: Endpoint) -> Reader:
        if self._is_draining():
            raise ChatStopping(
                "The chat service is being restarted; send the message again in a moment.", retry_after=2
            )
        turn = await asyncio.to_thread(self._store_turn, principal, request, endpoint.model)
        settings = self._settings
        answer = Answer(turn.answer.id, linger=settings.chat_linger_seconds, max_bytes=settings.chat_max_answer_bytes)
        self._live[answer.message_id] = answer
        reader = answer.attach()
        if self._is_draining():
            answer.stop(StopCause.RESTART)
        self._spawn(self._generate(answer, turn, endpoint))
        return reader

    async def _generate(self, answer: Answer, turn: Turn, endpoint: Endpoint) -> None:
        request = {
            "model": endpoint.model,
            "messages": turn.conversation,
            "stream": True,
            "stream_options": {"include_usage": True},
            **turn.parameters,
        }
        answer.asked(sum(len(each["content"]) for each in turn.conversation))
        relay = asyncio.create_task(self._upstream.relay(endpoint, request, answer.take, request_id=answer.message_id))
        # Only the relay is ever cancelled: this task lives on to keep what is there.
        answer.on_stop(relay.cancel)
        await asyncio.wait({relay})
        if answer.lacks_use and (used := await self._upstream.used(endpoint.base_url, answer.message_id)):
            answer.learn_use(used)
        await self._keep(answer, _outcome(answer, relay))

    async def _keep(self, answer: Answer, outcome: Outcome) -> None:
        """Stores the end of an answer, and does not give up while the database is away."""
        message = await until_stored(lambda: self._end(answer.message_id, outcome), message_id=answer.message_id)
        answer.finish(message)
        del self._live[answer.message_id]
        _log.info(
            "answer ended",
            message_id=answer.message_id,
            state=outcome.state.value,
            error=outcome.error,
            seconds=round(outcome.duration, 3),
            completion_tokens=outcome.completion_tokens,
        )

    async def _save(self) -> None:
        answers = list(self._live.values())
        if not answers:
            return
        grown = [answer for answer in answers if len(answer.text) > answer.saved_length]
        progress = [answer.progress() for answer in grown]
        asked_to_stop = await asyncio.to_thread(self._save_progress, [each.message_id for each in answers], progress)
        for answer, saved in zip(grown, progress, strict=True):
            answer.saved_length = len(saved.text)
        for message_id in asked_to_stop:
            if (found := self.find(message_id)) is not None:
                found.stop(StopCause.ASKED)

    def _spawn(self, work: Any) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _store_turn(self, principal: Principal, request: Request, model: str) -> Turn:
        with self._database.transaction() as session:
            return self._conversations.begin_answer(session, principal, request, model=model)

    def _save_progress(self, alive: Sequence[str], progress: Sequence[Progress]) -> Sequence[str]:
        with self._database.transaction() as session:
            return self._conversations.save_progress(session, alive=alive, progress=progress)

    def _end(self, message_id: str, outcome: Outcome) -> Message:
        with self._database.transaction() as session:
            return self._conversations.end_answer(session, message_id, outcome)

    def _load(self, principal: Principal, session_id: str, message_id: str) -> Message:
        with self._database.reading() as session:
            return self._conversations.get_message(session, principal, session_id=session_id, message_id=message_id)

    def _ask_to_stop(self, principal: Principal, session_id: str, message_id: str) -> Message:
        with self._database.transaction() as session:
            return self._conversations.ask_to_stop(session, principal, session_id=session_id, message_id=message_id)


def _outcome(answer: Answer, relay: "asyncio.Task[None]") -> Outcome:
    if relay.cancelled():
        return answer.outcome(MessageState.INTERRUPTED, (answer.stop_cause or StopCause.RESTART).value)
    error = relay.exception()
    if error is None:
        return answer.outcome(MessageState.COMPLETE)
    if isinstance(error, UpstreamError):
        return answer.outcome(MessageState.FAILED, error.message)
    _log.error("an answer failed by a defect", message_id=answer.message_id, error=repr(error))
    return answer.outcome(
        MessageState.FAILED, "Something went wrong here; the administrator finds the cause in the log."
    )


def _close_reader(beginning: "asyncio.Task[Reader]") -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().close()
