"""One HTTP request being answered: what the edge, the handlers and the access log tell each other."""

import asyncio
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from espalier_common.errors import EspalierError
from espalier_common.identity import Principal
from espalier_gateway.errors import BodyTooLarge, ClientGone, RequestTooSlow

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_KEY = "espalier.exchange"


@dataclass
class Exchange:
    """Kept in the ASGI scope from the edge inwards. `route` is a name of bounded variety, for logs and metrics.

    `caller` is known where the gateway itself answers, `made` the id of what it made there; `error` is what the request
    ended with, if it did.
    """

    request_id: str
    route: str = ""
    caller: Principal | None = None
    error: EspalierError | None = None
    made: str = ""

    def put(self, scope: Scope) -> None:
        """Makes the exchange known to everything below the edge."""
        scope[_KEY] = self


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the edge put there."""
    return cast(Exchange, scope[_KEY])


def raw_path_of(scope: Scope) -> str:
    """The path as the client sent it, still percent-encoded, without the query."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The whole body. Raises BodyTooLarge before reading more than `limit` bytes, RequestTooSlow, ClientGone."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while message := await _next_piece(request.receive):
                size += len(message["body"])
                if size > limit:
                    raise _too_large(limit)
                chunks.append(message["body"])
                if not message["more_body"]:
                    break
    except TimeoutError as error:
        raise RequestTooSlow(f"The body did not arrive within {seconds:g} s.") from error
    return b"".join(chunks)


async def _next_piece(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return {"body": message.get("body", b""), "more_body": message.get("more_body", False)}


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes, the most for JSON; files go to /api/v1/files.")
