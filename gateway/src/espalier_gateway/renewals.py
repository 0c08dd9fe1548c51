"""Renewals of one browser's session that come together.

The tabs of a browser have one cookie, and the refresh token in it is good once: the second renewal would count as that
of a thief and end the session. The console's tabs take turns, where the browser has locks (not over plain HTTP); those
that meet here get one answer. So does one that was sent before that answer came back to the browser, and arrives after
it: for a few seconds the same browser is given it again. Anybody else who shows the token ends the session as ever.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import Message

from espalier_common.rpc.client import Client

# How long a request may have been on its way to be one of a tab that had not seen the answer: the slowest networks.
KEPT_SECONDS = 5.0

_Shared = tuple[str, Client]


class Renewals:
    """Those that are on their way or just ended, by refresh token and browser."""

    def __init__(self) -> None:
        self._renewals: dict[_Shared, asyncio.Task[Message]] = {}

    async def share(self, refresh_token: str, renewal: Coroutine[Any, Any, Message], *, client: Client) -> Message:
        """The answer to this renewal, or to the one of this token and browser before it. Raises the service's error."""
        shared = (refresh_token, client)
        first = self._renewals.get(shared)
        if first is None:
            first = self._renewals[shared] = asyncio.create_task(renewal)
            first.add_done_callback(partial(self._keep, shared))
        else:
            renewal.close()
        # It goes on when the tab that began it is closed. Each caller takes the tokens out of an answer of his own.
        answer = await asyncio.shield(first)
        own = type(answer)()
        own.CopyFrom(answer)
        return own

    def _keep(self, shared: _Shared, ended: asyncio.Task[Message]) -> None:
        """Keeps an answer for a while; a refusal is asked for anew."""
        failed = ended.cancelled() or ended.exception() is not None
        if failed:
            del self._renewals[shared]
        else:
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._renewals.pop, shared)
