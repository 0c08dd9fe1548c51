"""Chat completions of the OpenAI API, relayed: nothing of them is kept but what they used.

One task makes an answer, the call that asked for it reads. A reader that goes ends the task's relay and never the task,
which tells what was used until then, once. What they have used so far is written down each second, so that a process
that is killed leaves it behind, and the next one tells.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy.orm import Session

from espalier_chat import repository
from espalier_chat.asking import Asked
from espalier_chat.errors import ChatStopping, ModelServerFailed, UpstreamError
from espalier_chat.keeping import until_stored
from espalier_chat.models import CompletionEnded, MessageState, RunningCompletion
from espalier_chat.passage import Passage
from espalier_chat.pipe import Pipe
from espalier_chat.service import HOLD_SECONDS, Endpoint, Limits, tokens_used
from espalier_common.db import Database, new_id, utc_now
from espalier_common.errors import EspalierError
from espalier_common.identity import Principal
from espalier_common.telemetry import get_logger

DRAIN_SECONDS = 8.0
SAVE_SECONDS = 1.0
SWEEP_EVERY = 5  # rounds of saving between two looks for what dead processes left
SILENCE = timedelta(seconds=10)  # living processes write each second
ORPHANS_AT_ONCE = 100

Publish = Callable[[Session, CompletionEnded], None]
"""Puts the event into the outbox, in the running transaction."""

_log = get_logger(__name__)


class Upstream(Protocol):
    """What completions are made with."""

    async def pass_on(self, endpoint: Endpoint, asked: Asked, passage: Passage, pipe: Pipe, *, request_id: str) -> None:
        """Hands the bytes of the answer over as they come. Raises UpstreamError, or an error for the caller."""

    async def used(self, base_url: str, request_id: str) -> tuple[int, int] | None:
        """Tokens of prompt and answer of a request that was cut; None where the model server does not know."""


class Completion:
    """One answer on its way to the call that asked for it."""

    def __init__(self, asked: Asked, endpoint: Endpoint, *, owner_id: str) -> None:
        self.id = new_id()
        self.asked = asked
        self.endpoint = endpoint
        self.owner_id = owner_id
        self.passage = Passage(keeps_use=asked.wants_use)
        self.pipe = Pipe()
        self.stop_error: EspalierError | None = None
        self.is_stopped = False
        self.is_over = False
        self._cancel: Callable[[], object] | None = None

    def on_stop(self, cancel: Callable[[], object]) -> None:
        """Sets what ends the relay; called at once when the stop came before."""
        self._cancel = cancel
        if self.is_stopped:
            cancel()

    def stop(self, error: EspalierError | None = None) -> None:
        """Ends the relay, as its reader went or with an error for it; nothing happens to one that has ended."""
        if not self.is_stopped:
            self.is_stopped, self.stop_error = True, error
            if self._cancel is not None:
                self._cancel()

    def used(self) -> tuple[int, int]:
        """Tokens of prompt and answer. Where the model server did not come to tell, the answer is counted by its
        pieces, the first of which says nothing yet, and the prompt estimated. A request that it refused used nothing.
        """
        passage = self.passage
        if not passage.is_asked:
            return 0, 0
        return tokens_used(
            passage.prompt_tokens,
            passage.completion_tokens,
            characters=self.asked.characters,
            pieces=max(passage.pieces - 1, 0),
        )

    @property
    def lacks_use(self) -> bool:
        """Whether the model server was asked and has not told what the answer used."""
        passage = self.passage
        return passage.is_asked and (passage.prompt_tokens is None or passage.completion_tokens is None)

    def running(self) -> RunningCompletion:
        """What it has used so far, to be written down."""
        used = self.used()
        return RunningCompletion(
            id=self.id,
            deployment_id=self.endpoint.deployment_id,
            owner_id=self.owner_id,
            model=self.endpoint.model,
            base_url=self.endpoint.base_url,
            prompt_tokens=used[0],
            completion_tokens=used[1],
            touched_at=utc_now(),
        )

    def ended(self, state: MessageState) -> CompletionEnded:
        """What it used."""
        used = self.used()
        return CompletionEnded(
            id=self.id,
            deployment_id=self.endpoint.deployment_id,
            owner_id=self.owner_id,
            model=self.endpoint.model,
            state=state,
            prompt_tokens=used[0],
            completion_tokens=used[1],
            estimated=self.lacks_use,
        )


class Completions:
    """All completions that this process relays. Lives on the event loop; the database is reached through threads."""

    def __init__(self, database: Database, *, limits: Limits, upstream: Upstream, publish: Publish) -> None:
        self._database = database
        self._limits = limits
        self._upstream = upstream
        self._publish = publish
        self._live: dict[Completion, asyncio.Task[None]] = {}
        self._is_draining = False

    def begin(self, principal: Principal, asked: Asked, endpoint: Endpoint) -> Completion:
        """Begins an answer, whose pipe tells how it goes. `stop` it when its reader goes. Raises ChatStopping."""
        if self._is_draining:
            raise _stopping()
        completion = Completion(asked, endpoint, owner_id=principal.subject)
        task = asyncio.create_task(self._run(completion))
        self._live[completion] = task
        task.add_done_callback(lambda _: self._live.pop(completion))
        return completion

    async def run(self, silence: timedelta = SILENCE) -> None:
        """Background task: writes down what is used, and tells what processes used that are gone.

        The first look is for those that were silent for `silence`.
        """
        rounds = 0
        while True:
            try:
                if rounds % SWEEP_EVERY == 0:
                    await self.tell_orphans(SILENCE if rounds else silence)
                await self._save()
            except Exception as error:
                _log.warning("completions could not be written down", error=repr(error))
            rounds += 1
            await asyncio.sleep(SAVE_SECONDS)

    async def tell_orphans(self, silent_for: timedelta) -> None:
        """Tells what completions used that no process relays any more; as the model server knows it, if it does."""
        orphans = await asyncio.to_thread(self._orphans, silent_for)
        told = await asyncio.gather(*(self._upstream.used(each.base_url, each.id) for each in orphans))
        for orphan, used in zip(orphans, told, strict=True):
            ended = CompletionEnded(
                id=orphan.id,
                deployment_id=orphan.deployment_id,
                owner_id=orphan.owner_id,
                model=orphan.model,
                state=MessageState.INTERRUPTED,
                prompt_tokens=used[0] if used else orphan.prompt_tokens,
                completion_tokens=used[1] if used else orphan.completion_tokens,
                estimated=used is None,
            )
            await asyncio.to_thread(self._tell_orphan, ended)
            _log.info("told what a process used that is gone", completion_id=ended.id, model=ended.model)

    async def drain(self) -> None:
        """The process is told to stop: answers end with a word to their readers, and what they used is told."""
        self._is_draining = True
        for completion in list(self._live):
            completion.stop(_stopping())
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._live:
                    await asyncio.wait(set(self._live.values()))

    async def _run(self, completion: Completion) -> None:
        try:
            await asyncio.to_thread(self._hold, completion)
        except Exception as error:
            completion.pipe.close(error)
            return
        relay = asyncio.create_task(
            self._upstream.pass_on(
                completion.endpoint,
                completion.asked,
                completion.passage,
                completion.pipe,
                request_id=completion.id,
            )
        )
        completion.on_stop(relay.cancel)
        await asyncio.wait({relay})
        state, failure = _end_of(completion, relay)
        completion.pipe.close(failure)
        await self._ask_use(completion)
        completion.is_over = True
        ended = completion.ended(state)
        await until_stored(lambda: self._tell(ended), message_id=ended.id)
        _log.info(
            "completion ended",
            completion_id=ended.id,
            state=state.value,
            error=getattr(failure, "reason", repr(failure)) if failure else "",
            prompt_tokens=ended.prompt_tokens,
            completion_tokens=ended.completion_tokens,
        )

    async def _ask_use(self, completion: Completion) -> None:
        """Of an answer that was cut the model server may know more than it came to tell."""
        if completion.lacks_use:
            used = await self._upstream.used(completion.endpoint.base_url, completion.id)
            if used is not None:
                completion.passage.prompt_tokens, completion.passage.completion_tokens = used

    async def _save(self) -> None:
        running = [each for each in self._live if each.passage.is_asked and not each.is_over]
        if not running:
            return
        await asyncio.to_thread(self._write_down, [each.running() for each in running])
        # One that has ended meanwhile may have been forgotten before it was written down.
        if over := [each.id for each in running if each.is_over]:
            await asyncio.to_thread(self._forget, over)

    def _hold(self, completion: Completion) -> None:
        """What is told at the end settles it."""
        self._limits.reserve(
            completion.id,
            user_id=completion.owner_id,
            amounts=completion.asked.least_use,
            seconds=HOLD_SECONDS,
        )

    def _tell(self, ended: CompletionEnded) -> None:
        with self._database.transaction() as session:
            repository.forget_completions(session, [ended.id])
            self._publish(session, ended)

    def _tell_orphan(self, ended: CompletionEnded) -> None:
        with self._database.transaction() as session:
            # Of several processes that found it one tells.
            if repository.forget_completions(session, [ended.id]):
                self._publish(session, ended)

    def _write_down(self, running: Sequence[RunningCompletion]) -> None:
        with self._database.transaction() as session:
            repository.save_completions(session, running)

    def _forget(self, ids: Sequence[str]) -> None:
        with self._database.transaction() as session:
            repository.forget_completions(session, ids)

    def _orphans(self, silent_for: timedelta) -> Sequence[RunningCompletion]:
        with self._database.reading() as session:
            since = utc_now() - silent_for
            return repository.silent_completions(session, untouched_since=since, limit=ORPHANS_AT_ONCE)


def _end_of(completion: Completion, relay: "asyncio.Task[Any]") -> tuple[MessageState, Exception | None]:
    """How it ended, and with what for its reader."""
    if relay.cancelled():
        return MessageState.INTERRUPTED, completion.stop_error
    error = relay.exception()
    if error is None:
        return MessageState.COMPLETE, None
    if isinstance(error, UpstreamError):
        return MessageState.FAILED, ModelServerFailed(error.message, retry_after=2)
    # A defect is told by the edge of the call.
    return MessageState.FAILED, error if isinstance(error, Exception) else RuntimeError(repr(error))


def _stopping() -> ChatStopping:
    return ChatStopping("The chat service is being restarted; send the request again in a moment.", retry_after=2)
