"""Sends an upload back: as an attachment, never to be shown or run by a browser, whole or by range."""

import asyncio
from collections.abc import AsyncIterator
from typing import IO
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from espalier_common.uploads import Upload, UploadStore
from espalier_gateway.files.ranges import read_range
from espalier_gateway.files.receiver import blocking
from espalier_gateway.security_headers import FILE_POLICY

PIECE_BYTES = 256 << 10


async def download(store: UploadStore, upload: Upload, headers: Headers) -> Response:
    """The answer with the file's bytes. Raises RangeNotSatisfiable."""
    etag = f'"{upload.sha256}"'
    if headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    # A range of a file that has changed since would be a piece of another file.
    asked = headers.get("range", "") if headers.get("if-range", etag) == etag else ""
    span = read_range(asked, upload.length) if asked else None
    first, last = span or (0, upload.length)
    file = await blocking(store.open, upload.id)
    answer = {
        "Content-Length": str(last - first),
        "Content-Disposition": disposition(upload.filename),
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Security-Policy": FILE_POLICY,
    }
    if span:
        answer["Content-Range"] = f"bytes {first}-{last - 1}/{upload.length}"
    return StreamingResponse(
        _pieces(file, first, last),
        status_code=206 if span else 200,
        headers=answer,
        media_type="application/octet-stream",
    )


def disposition(filename: str) -> str:
    """Content-Disposition by RFC 6266: an ASCII name for old clients, the true one percent-encoded."""
    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._- ") else "_" for letter in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


async def _pieces(file: IO[bytes], first: int, last: int) -> AsyncIterator[bytes]:
    try:
        await asyncio.to_thread(_skip, file, first)
        left = last - first
        while left > 0:
            piece = await asyncio.to_thread(file.read, min(PIECE_BYTES, left))
            if not piece:
                raise EOFError("the upload is shorter than its length says")
            left -= len(piece)
            yield piece
    finally:
        file.close()


def _skip(file: IO[bytes], count: int) -> None:
    if file.seekable():
        file.seek(count)
        return
    while count > 0 and (piece := file.read(min(PIECE_BYTES, count))):
        count -= len(piece)
