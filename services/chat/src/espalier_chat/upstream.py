"""The model servers: OpenAI-compatible chat completions over HTTP, streamed. Nothing of what they send is trusted."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from espalier_chat.asking import Asked
from espalier_chat.chunks import DONE, MAX_LINE_BYTES, Piece, data_of, nonsense, parse_piece, tokens_of
from espalier_chat.errors import UpstreamError
from espalier_chat.passage import Passage
from espalier_chat.pipe import Pipe
from espalier_chat.refusals import refusal_for_caller, refusal_in_session
from espalier_chat.service import Endpoint
from espalier_chat.settings import ChatSettings

if TYPE_CHECKING:
    import aiohttp

MAX_REFUSAL_BYTES = 64 << 10
CONNECT_SECONDS = 10.0
USED_SECONDS = 4.0  # less than what there is for the end of all answers when this process is told to stop
LARGE_CHARACTERS = 128 << 10  # writing more takes long enough to be noticed by other calls
EVENTS, JSON = "text/event-stream", "application/json"


class ModelServers:
    """One pool of connections for all model servers, opened at first use."""

    def __init__(self, settings: ChatSettings) -> None:
        self._idle_seconds = settings.chat_idle_seconds
        self._whole_seconds = settings.chat_completion_seconds
        self._max_bytes = settings.chat_max_answer_bytes
        self._session: aiohttp.ClientSession | None = None

    async def relay(
        self, endpoint: Endpoint, request: Mapping[str, Any], take: Callable[[Piece], None], *, request_id: str
    ) -> None:
        """Asks for a streamed chat completion and hands each piece over as it comes; returns at its end.

        Raises UpstreamError. Cancelling closes the connection, which makes the model server stop.
        """
        async with (
            _patience(self._idle_seconds) as patience,
            self._ask(endpoint, orjson.dumps(request), accept=EVENTS, request_id=request_id) as response,
        ):
            if response.status != 200:
                raise refusal_in_session(response.status, await _start_of_body(response))
            await self._read_pieces(response, take, patience)

    async def pass_on(self, endpoint: Endpoint, asked: Asked, passage: Passage, pipe: Pipe, *, request_id: str) -> None:
        """Asks as the caller did and puts the bytes of the answer into the pipe as they come; returns at its end.

        Raises UpstreamError, CompletionRefused, ModelBusy. Cancelling closes the connection, as for `relay`.
        """
        seconds, accept = (self._idle_seconds, EVENTS) if asked.streams else (self._whole_seconds, JSON)
        is_large = asked.characters > LARGE_CHARACTERS
        body = await asyncio.to_thread(asked.body_for, endpoint.model) if is_large else asked.body_for(endpoint.model)
        passage.is_asked = True
        async with (
            _patience(seconds) as patience,
            self._ask(endpoint, body, accept=accept, request_id=request_id) as response,
        ):
            if response.status != 200:
                passage.is_asked = False
                refusal = await _start_of_body(response)
                raise refusal_for_caller(response.status, refusal, response.headers.get("retry-after", ""))
            if asked.streams:
                await self._pass_events(response, passage, pipe, patience)
            else:
                answer = await self._whole(response)
                passage.read_whole(answer)
                await pipe.put(answer)

    async def used(self, base_url: str, request_id: str) -> tuple[int, int] | None:
        """Tokens of prompt and answer of a request that was cut: our own model server remembers them for a while.

        None where nobody can tell; any other model server knows no such address.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=USED_SECONDS)
        try:
            async with self._open().get(
                f"{base_url}/usage/{request_id}", timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    return None
                told = tokens_of({"usage": orjson.loads(await _start_of_body(response))})
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, UpstreamError):
            return None
        return None if told[0] is None or told[1] is None else (told[0], told[1])

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._session is not None:
            await self._session.close()

    async def _read_pieces(
        self, response: "aiohttp.ClientResponse", take: Callable[[Piece], None], patience: asyncio.Timeout
    ) -> None:
        ended, buffer = False, b""
        async for block in response.content.iter_any():
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                if (data := data_of(line)) is None:
                    continue
                self._renew(patience)
                if data == DONE:
                    return
                piece = parse_piece(data)
                ended = ended or bool(piece.finish_reason)
                take(piece)
            if len(buffer) > MAX_LINE_BYTES:
                raise nonsense()
        if not ended:
            raise _cut_short()

    async def _pass_events(
        self, response: "aiohttp.ClientResponse", passage: Passage, pipe: Pipe, patience: asyncio.Timeout
    ) -> None:
        await pipe.put(b"")
        async for block in response.content.iter_any():
            if lines := passage.lines(block):
                # A reader that is slow must not look like a model server that is.
                waiting = patience.when()
                patience.reschedule(None)
                await pipe.put(lines)
                patience.reschedule(waiting)
                # Comments keep connections open; they are no answer.
                if b"data:" in lines:
                    self._renew(patience)
            if passage.has_ended:
                return
        raise _cut_short()

    async def _whole(self, response: "aiohttp.ClientResponse") -> bytes:
        body = bytearray()
        async for block in response.content.iter_any():
            body += block
            if len(body) > self._max_bytes:
                raise UpstreamError(f"The answer grew beyond {self._max_bytes} bytes.")
        return bytes(body)

    def _renew(self, patience: asyncio.Timeout) -> None:
        patience.reschedule(asyncio.get_running_loop().time() + self._idle_seconds)

    def _ask(
        self, endpoint: Endpoint, body: bytes, *, accept: str, request_id: str
    ) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
        # In blocks: a long conversation must not be written in one go on the event loop.
        return self._open().post(
            f"{endpoint.base_url}/chat/completions",
            data=io.BytesIO(body),
            headers={"Accept": accept, "X-Request-Id": request_id},
            allow_redirects=False,
        )

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
                    "Accept-Encoding": "identity",
                },
            )
        return self._session


async def _start_of_body(response: "aiohttp.ClientResponse") -> bytes:
    body = b""
    async for block in response.content.iter_any():
        body += block
        if len(body) >= MAX_REFUSAL_BYTES:
            break
    return body[:MAX_REFUSAL_BYTES]


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """What goes wrong on the way to a model server, as a sentence; among it that the time is over."""
    import aiohttp

    try:
        async with asyncio.timeout(seconds) as patience:
            yield patience
    except TimeoutError as error:
        raise UpstreamError(f"The model server sent nothing for {seconds:g} seconds.") from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamError(
            "The model server does not answer; look at its deployment, then send the message again."
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError("The connection to the model server broke before the answer was complete.") from error


def _cut_short() -> UpstreamError:
    return UpstreamError("The model server ended in the middle of the answer.")
