"""Chat completions of the OpenAI API, relayed: nothing of them is kept but what they used.

One task makes an answer, the call that asked for it reads. A reader that goes ends the task's relay and never the task,
which tells what was used until then, once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy.orm import Session

from espalier_chat.asking import Asked
from espalier_chat.errors import ChatStopping, ModelServerFailed, UpstreamError
from espalier_chat.keeping import until_stored
from espalier_chat.models import CompletionEnded, MessageState
from espalier_chat.passage import Passage
from espalier_chat.pipe import Pipe
from espalier_chat.service import HOLD_SECONDS, Endpoint, Limits, tokens_used
from espalier_common.db import Database, new_id
from espalier_common.errors import EspalierError
from espalier_common.identity import Principal
from espalier_common.telemetry import get_logger

DRAIN_SECONDS = 8.0

Publish = Callable[[Session, CompletionEnded], None]
"""Puts the event into the outbox, in the running transaction."""

_log = get_logger(__name__)


class Upstream(Protocol):
    """What completions are made with."""

    async def pass_on(self, endpoint: Endpoint, asked: Asked, passage: Passage, pipe: Pipe) -> None:
        """Hands the bytes of the answer over as they come. Raises UpstreamError, or an error for the caller."""


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

    def ended(self, state: MessageState) -> CompletionEnded:
        """What it used. Where the model server did not come to tell, the answer is counted by its pieces, the first of
        which says nothing yet, and the prompt estimated. A request that it refused used nothing.
        """
        passage, used = self.passage, (0, 0)
        if passage.is_asked:
            used = tokens_used(
                passage.prompt_tokens,
                passage.completion_tokens,
                characters=self.asked.characters,
                pieces=max(passage.pieces - 1, 0),
            )
        return CompletionEnded(
            id=self.id,
            deployment_id=self.endpoint.deployment_id,
            owner_id=self.owner_id,
            model=self.endpoint.model,
            state=state,
            prompt_tokens=used[0],
            completion_tokens=used[1],
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
            self._upstream.pass_on(completion.endpoint, completion.asked, completion.passage, completion.pipe)
        )
        completion.on_stop(relay.cancel)
        await asyncio.wait({relay})
        state, failure = _end_of(completion, relay)
        completion.pipe.close(failure)
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
            self._publish(session, ended)


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
