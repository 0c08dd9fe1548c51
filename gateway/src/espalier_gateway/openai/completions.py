"""`POST /v1/chat/completions`: the bytes of the model server, as chat relays them.

A whole answer is one response. A stream is Server-Sent Events as OpenAI has them, with a comment in each long pause; an
error after its beginning is its last event, so that a reader never takes half an answer for a whole one.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from espalier_common.errors import EspalierError, Unavailable
from espalier_gateway.call_relay import EVENT_HEADERS, HEARTBEAT, CallRelay, Outlet
from espalier_gateway.errors import MalformedRequest, MethodNotAllowed, UnsupportedMedia
from espalier_gateway.exchange import exchange_of, read_body
from espalier_gateway.openai.calls import Calls
from espalier_gateway.openai.errors import error_body
from espalier_gateway.settings import GatewaySettings

PATH = "/v1/chat/completions"
RPC = "espalier.chat.v1.CompletionService.CreateCompletion"
JSON = "application/json"


class ChatCompletions:
    """The ASGI application of the route."""

    def __init__(self, settings: GatewaySettings, *, calls: Calls, relay: CallRelay) -> None:
        self._settings = settings
        self._calls = calls
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises the error of whatever goes wrong before the answer has begun."""
        exchange_of(scope).route = PATH
        request = Request(scope, receive)
        if request.method != "POST":
            raise MethodNotAllowed(request.method, {"POST"})
        metadata = self._calls.metadata(request)
        content = await self._content(request)
        call = self._calls.stream(RPC, metadata, content=content)
        answer = _Answer(self._settings, send)
        await self._relay.carry(call, answer, request)
        if answer.whole is not None:
            await Response(answer.whole, media_type=JSON)(scope, receive, send)

    async def _content(self, request: Request) -> bytes:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != JSON:
            raise UnsupportedMedia(f"The body must be {JSON}; it is {media_type[:100] or 'of no stated type'}.")
        limit, seconds = self._settings.max_body_bytes, self._settings.body_seconds
        content = await read_body(request, limit=limit, seconds=seconds)
        if not content:
            raise MalformedRequest("The body is empty; it must be a JSON object with `model` and `messages`.")
        return content


class _Answer:
    """One answer on its way. `whole` is set at the end of one that is no stream."""

    def __init__(self, settings: GatewaySettings, send: Send) -> None:
        self.whole: bytes | None = None
        self._outlet = Outlet(settings, send)
        self._pieces: list[bytes] = []
        self._content_type = ""

    async def take(self, message: Any) -> None:
        self._content_type = self._content_type or message.content_type
        if self._content_type == JSON:
            self._pieces.append(message.content)
        else:
            await self._write(message.content)

    async def end(self) -> None:
        if self._content_type == JSON:
            self.whole = b"".join(self._pieces)
        else:
            await self._write(b"", last=True)

    async def fail(self, error: EspalierError) -> None:
        if not self._outlet.is_open:
            raise error
        # An empty line first: the event before may have lost its own.
        await self._write(b"\ndata: " + error_body(error) + b"\n\n", last=True)

    async def pause(self) -> None:
        if self._outlet.is_open:
            await self._write(HEARTBEAT)

    async def leave(self) -> None:
        await self.fail(Unavailable("The gateway is being restarted; send the request again.", retry_after=2))

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        await self._outlet.write(data, headers=EVENT_HEADERS, last=last)
