"""Renewals of one browser's session that are on their way at once.

The tabs of a browser have one cookie, and the refresh token in it is good once: the second renewal would count as that
of a thief and end the session. The console's tabs take turns, where the browser has locks (not over plain HTTP); those
that meet here get one answer. One that comes after the answer is a used token, and ends the session as ever.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import Message


class Renewals:
    """Those that are on their way, by refresh token."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Message]] = {}

    async def share(self, refresh_token: str, renewal: Coroutine[Any, Any, Message]) -> Message:
        """The answer to this renewal, or to the one of this token that is on its way. Raises the service's error."""
        running = self._running.get(refresh_token)
        if running is None:
            running = self._running[refresh_token] = asyncio.create_task(renewal)
            running.add_done_callback(partial(self._forget, refresh_token))
        else:
            renewal.close()
        # It goes on when the tab that began it is closed. Each caller takes the tokens out of an answer of his own.
        answer = await asyncio.shield(running)
        own = type(answer)()
        own.CopyFrom(answer)
        return own

    def _forget(self, refresh_token: str, ended: asyncio.Task[Message]) -> None:
        del self._running[refresh_token]
        if not ended.cancelled():
            ended.exception()  # nobody may be left who takes it
