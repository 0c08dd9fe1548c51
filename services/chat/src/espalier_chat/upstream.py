"""The model servers: OpenAI-compatible chat completions over HTTP, streamed. Nothing of what they send is trusted."""

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from espalier_chat.errors import UpstreamError
from espalier_chat.service import Endpoint

if TYPE_CHECKING:
    import aiohttp

MAX_LINE_BYTES = 1 << 20
MAX_REFUSAL_BYTES = 64 << 10
CONNECT_SECONDS = 10.0
DONE = b"[DONE]"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one event of a stream adds; counts are None where it tells none."""

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ModelServers:
    """One pool of connections for all model servers, opened at first use."""

    def __init__(self, *, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._session: aiohttp.ClientSession | None = None

    async def relay(self, endpoint: Endpoint, request: Mapping[str, Any], take: Callable[[Piece], None]) -> None:
        """Asks for a streamed chat completion and hands each piece over as it comes; returns at its end.

        Raises UpstreamError. Cancelling closes the connection, which makes the model server stop.
        """
        import aiohttp

        try:
            async with asyncio.timeout(self._idle_seconds) as idle:
                await self._relay(endpoint, request, take, idle)
        except TimeoutError as error:
            raise UpstreamError(f"The model server sent nothing for {self._idle_seconds:g} seconds.") from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamError(
                "The model server does not answer; look at its deployment, then send the message again."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError("The connection to the model server broke before the answer was complete.") from error

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._session is not None:
            await self._session.close()

    async def _relay(
        self, endpoint: Endpoint, request: Mapping[str, Any], take: Callable[[Piece], None], idle: asyncio.Timeout
    ) -> None:
        loop = asyncio.get_running_loop()
        ended, url = False, f"{endpoint.base_url}/chat/completions"
        # In blocks: a long conversation must not be written in one go on the event loop.
        body = io.BytesIO(orjson.dumps(request))
        async with self._open().post(url, data=body, allow_redirects=False) as response:
            if response.status != 200:
                raise _refusal(response.status, await _start_of_body(response))
            buffer = b""
            async for block in response.content.iter_any():
                *lines, buffer = (buffer + block).split(b"\n")
                for line in lines:
                    if (data := _data_of(line)) is None:
                        continue
                    idle.reschedule(loop.time() + self._idle_seconds)
                    if data == DONE:
                        return
                    piece = parse_piece(data)
                    ended = ended or bool(piece.finish_reason)
                    take(piece)
                if len(buffer) > MAX_LINE_BYTES:
                    raise _nonsense()
        if not ended:
            raise UpstreamError("The model server ended in the middle of the answer.")

    def _open(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                # A body that unpacks into gigabytes is none of ours to unpack.
                auto_decompress=False,
                headers={
                    "Content-Type": "application/json",
                    "Accept": "text/event-stream",
                    "Accept-Encoding": "identity",
                },
            )
        return self._session


def parse_piece(data: bytes) -> Piece:
    """One `data:` of the stream. Raises UpstreamError when it is no chunk of a chat completion, or tells an error."""
    chunk = _load(data)
    if not isinstance(chunk, dict):
        raise _nonsense()
    if chunk.get("error"):
        raise UpstreamError("The model server failed while it was answering.")
    choice = (chunk.get("choices") or [{}])[0]
    usage = chunk.get("usage") or {}
    try:
        return Piece(
            # PostgreSQL stores no NUL.
            text=((choice.get("delta") or {}).get("content") or "").replace("\x00", ""),
            finish_reason=str(choice.get("finish_reason") or "")[:64],
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
        )
    except AttributeError as error:
        raise _nonsense() from error


def _load(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Half a surrogate pair, which some servers send when a token ends within an emoji, is no reason to fail.
        try:
            text = json.loads(data)
        except ValueError as error:
            raise _nonsense() from error
        return orjson.loads(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))


def _count(value: object) -> int | None:
    return min(value, 2**31 - 1) if isinstance(value, int) and value >= 0 else None


def _data_of(line: bytes) -> bytes | None:
    """The payload of an SSE data line; None for any other line."""
    if len(line) > MAX_LINE_BYTES:
        raise _nonsense()
    return line[5:].strip() or None if line.startswith(b"data:") else None


async def _start_of_body(response: "aiohttp.ClientResponse") -> bytes:
    body = b""
    async for block in response.content.iter_any():
        body += block
        if len(body) >= MAX_REFUSAL_BYTES:
            break
    return body[:MAX_REFUSAL_BYTES]


_REFUSALS = {
    400: "The model server refused the request; the conversation may be longer than the model can read.",
    401: "The model server refused the platform's credentials.",
    403: "The model server refused the platform's credentials.",
    404: "The model server does not know the model; look at its deployment.",
    413: "The conversation is longer than the model server takes; open a new session.",
    422: "The model server refused the request; the conversation may be longer than the model can read.",
    429: "The model server is busy; wait a moment, then send the message again.",
}
_TOO_LONG = "The conversation is longer than the model can read; open a new session, or say less."


def _refusal(status: int, body: bytes) -> UpstreamError:
    """A sentence by the status, and by the one error code that asks the user for something else."""
    try:
        code = orjson.loads(body)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        code = None
    if code == "context_length_exceeded":
        return UpstreamError(_TOO_LONG)
    return UpstreamError(_REFUSALS.get(status, f"The model server failed with HTTP {status}."))


def _nonsense() -> UpstreamError:
    return UpstreamError("The model server sent something that is no chat completion.")
