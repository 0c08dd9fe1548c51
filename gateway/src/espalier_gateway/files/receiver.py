"""Takes the bytes of a request to disk, a block at a time, so that no upload is ever whole in memory."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.requests import Request

from espalier_common.errors import EspalierError
from espalier_common.rpc.status import translate
from espalier_common.uploads import Upload, UploadCorrupt, UploadStore
from espalier_gateway.errors import ClientGone, RequestTooSlow

# Each block is one write and one fsync; larger ones gain nothing and cost memory for each upload.
BLOCK_BYTES = 4 << 20

P = ParamSpec("P")
T = TypeVar("T")


class Receiver:
    """Appends bodies to uploads. `idle_seconds` without a byte end the request; what came until then is kept."""

    def __init__(self, store: UploadStore, *, idle_seconds: float) -> None:
        self._store = store
        self._idle_seconds = idle_seconds

    async def receive(self, request: Request, upload: Upload, *, offset: int) -> Upload:
        """Appends the whole body from `offset` on, and closes the upload when it is complete.

        Raises UploadOffsetWrong, UploadTooLong, UploadCorrupt, DiskFull, RequestTooSlow, ClientGone.
        """
        block = bytearray()
        more = True
        upload = await self._append(upload, offset, b"")
        while more:
            try:
                piece, more = await self._next(request)
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
            raise RequestTooSlow(
                f"No byte arrived for {self._idle_seconds:g} s; go on with the upload later."
            ) from error
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


async def blocking(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Runs a call of the store in a thread, its errors translated: a full disk is DiskFull."""
    try:
        return await asyncio.to_thread(call, *arguments, **named)
    except EspalierError:
        raise
    except OSError as error:
        raise translate(error) from error
