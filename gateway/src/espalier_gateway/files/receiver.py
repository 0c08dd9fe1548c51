"""Takes the bytes of a request to disk, a block at a time, so that no upload is ever whole in memory."""

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.requests import Request

from espalier_common.errors import EspalierError
from espalier_common.rpc.status import translate
from espalier_common.uploads import Upload, UploadCorrupt, UploadStore
from espalier_gateway.errors import ClientGone, RequestTooSlow

# Each block is one write and one fsync; larger ones gain nothing and cost memory for each upload.
BLOCK_BYTES = 4 << 20
LEAST_BYTES = 4096  # in each span of the idle time; what comes slower holds a connection and no more

P = ParamSpec("P")
T = TypeVar("T")


class Receiver:
    """Appends bodies to uploads. `idle_seconds` with less than LEAST_BYTES end the request; what came is kept."""

    def __init__(self, store: UploadStore, *, idle_seconds: float) -> None:
        self._store = store
        self._idle_seconds = idle_seconds

    async def receive(self, request: Request, upload: Upload, *, offset: int) -> Upload:
        """Appends the whole body from `offset` on, and closes the upload when it is complete.

        Raises UploadOffsetWrong, UploadTooLong, UploadCorrupt, DiskFull, RequestTooSlow, ClientGone.
        """
        block = bytearray()
        more = True
        pace = _Pace(self._idle_seconds)
        upload = await self._append(upload, offset, b"")
        while more:
            try:
                piece, more = await self._next(request)
                pace.check(len(piece), more=more)
            except (ClientGone, RequestTooSlow):
                await self._append(upload, upload.offset, bytes(block))
                raise
            block += piece
            if block and (len(block) >= BLOCK_BYTES or not more):
                upload = await self._append(upload, upload.offset, bytes(block))
                block.clear()
        return await self._finish(upload) if upload.offset == upload.length else upload

    async def _next(self, request: Request) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(self._idle_seconds):
                message = await request.receive()
        except TimeoutError as error:
            raise _too_slow(self._idle_seconds) from error
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def _append(self, upload: Upload, offset: int, block: bytes) -> Upload:
        return await blocking(self._store.append, upload.id, offset=offset, chunks=[block] if block else [])

    async def _finish(self, upload: Upload) -> Upload:
        try:
            return await blocking(self._store.finish, upload.id)
        except UploadCorrupt:
            # Its bytes are not those announced, so nothing can be made of it any more.
            await blocking(self._store.delete, upload.id)
            raise


class _Pace:
    """How fast a body arrives."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bytes = 0
        self._begun = time.monotonic()

    def check(self, count: int, *, more: bool) -> None:
        """Takes notice of so many bytes. Raises RequestTooSlow."""
        self._bytes += count
        now = time.monotonic()
        if self._bytes >= LEAST_BYTES:
            self._begun, self._bytes = now, 0
        elif more and now - self._begun > self._seconds:
            raise _too_slow(self._seconds)


def _too_slow(seconds: float) -> RequestTooSlow:
    return RequestTooSlow(f"Hardly a byte arrived for {seconds:g} s; go on with the upload later.")


async def blocking(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Runs a call of the store in a thread, its errors translated: a full disk is DiskFull."""
    try:
        return await asyncio.to_thread(call, *arguments, **named)
    except EspalierError:
        raise
    except OSError as error:
        raise translate(error) from error
