"""What ends before it expires: tokens of disabled users, changed roles, ended sessions and deleted API keys.

Each process asks auth every other second and keeps the whole list, so that what is decided at auth holds everywhere
within five seconds, for verdicts that are cached and for streams that are open too.

While auth does not answer, what is known stays in force. After `grace` seconds without an answer nobody can say whether
a caller was shut out meanwhile: people may still read, and change nothing until auth is back (`is_stale`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from espalier_common.rpc.bare_channel import lazy_channel
from espalier_common.rpc.context import AUTHORIZATION_HEADER
from espalier_common.telemetry import get_logger

POLL_SECONDS = 2.0
CALL_SECONDS = 2.0
GRACE_SECONDS = 30.0

Fetch = Callable[[], Mapping[str, float]]
"""Gives, by user, session or key, the Unix time before which its tokens are refused; blocks; raises when it cannot."""

_log = get_logger(__name__)


class Revocable(Protocol):
    """What a verified token says of itself: Principal has it."""

    @property
    def subject(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def issued_at(self) -> float: ...


class Revocations:
    """The list as it was at the last answer. `covers` is called from any thread, all else on the event loop."""

    def __init__(self, fetch: Fetch, *, poll: float = POLL_SECONDS, grace: float = GRACE_SECONDS) -> None:
        self._fetch = fetch
        self._poll = poll
        self._grace = grace
        self._not_before: Mapping[str, float] = {}
        self._answered_at = time.monotonic()
        self._watched: dict[asyncio.Future[None], Revocable] = {}

    def covers(self, holder: Revocable) -> bool:
        """Whether the token was taken back."""
        known = self._not_before
        if not known:
            return False
        return holder.issued_at < max(known.get(holder.subject, 0.0), known.get(holder.session, 0.0))

    def is_stale(self) -> bool:
        """Whether auth has not answered for so long that changes must wait."""
        return time.monotonic() - self._answered_at > self._grace

    async def wait(self, holder: Revocable) -> None:
        """Returns once the token is taken back."""
        if self.covers(holder):
            return
        taken_back = asyncio.get_running_loop().create_future()
        self._watched[taken_back] = holder
        try:
            await taken_back
        finally:
            del self._watched[taken_back]

    async def run(self) -> None:
        """Asks for ever. In a thread of its own: the others may all be busy."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="revocations") as thread:
            said = False
            while True:
                try:
                    self.put(await loop.run_in_executor(thread, self._fetch))
                    said = False
                except Exception as error:
                    if not said:
                        _log.warning("auth does not say what was revoked, asking on", error=type(error).__name__)
                    said = True
                await asyncio.sleep(self._poll)

    def put(self, not_before: Mapping[str, float]) -> None:
        """Takes an answer, and ends what it covers."""
        self._not_before = dict(not_before)
        self._answered_at = time.monotonic()
        for taken_back, holder in list(self._watched.items()):
            if self.covers(holder) and not taken_back.done():
                taken_back.set_result(None)


def fetch_revocations(address: str, *, token: Callable[[], str]) -> Fetch:
    """A source: RevocationService.ListRevocations at host:port, in the name of the service whose `token` this is."""
    channel = lazy_channel(address)

    def fetch() -> dict[str, float]:
        from espalier.auth.v1 import sessions_pb2, sessions_pb2_grpc

        reply = sessions_pb2_grpc.RevocationServiceStub(channel()).ListRevocations(
            sessions_pb2.ListRevocationsRequest(),
            timeout=CALL_SECONDS,
            metadata=((AUTHORIZATION_HEADER, f"Bearer {token()}"),),
        )
        return {item.subject: item.not_before.seconds + item.not_before.nanos / 1e9 for item in reply.revocations}

    return fetch
