"""Bytes from the task that makes an answer to the one call that reads it."""

import asyncio
from collections.abc import AsyncIterator

ROOM_BYTES = 256 << 10


class Pipe:
    """Lives on the event loop. What lies in it goes out in one piece; while much lies there its writer waits."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_closed = False
        self._error: Exception | None = None
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    async def put(self, data: bytes) -> None:
        """Adds bytes, none to say that some will come; waits while the reader is far behind."""
        await self._emptied.wait()
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= ROOM_BYTES:
            self._emptied.clear()
        self._filled.set()

    def close(self, error: Exception | None = None) -> None:
        """Nothing more comes; the reader gets what is there, and then the error if there is one."""
        self._is_closed, self._error = True, error
        self._filled.set()

    async def read(self) -> AsyncIterator[bytes]:
        """All that is there, again and again until the end. Raises the error that it ended with."""
        while True:
            await self._filled.wait()
            if not self._pieces:
                if self._error is not None:
                    raise self._error
                return
            data, self._pieces, self._size = b"".join(self._pieces), [], 0
            self._emptied.set()
            if not self._is_closed:
                self._filled.clear()
            yield data
