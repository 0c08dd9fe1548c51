"""Server streams as Server-Sent Events.

    id: <value of the field that the RPC's stream option names, or 1, 2, 3 …>
    data: <the message as JSON, one line>

    : heartbeat                 in each pause of 15 s, so that proxies and readers know the stream lives
    event: end                  the RPC has ended; do not reconnect
    event: error                the RPC has failed; data is the problem JSON

An error before the first message answers the request as a normal problem. One message is read from the service
only after the one before was taken by the client, so a slow reader slows its own stream and nothing piles up.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.types import Send

from espalier_common.errors import EspalierError, FieldViolation, InvalidArgument
from espalier_common.telemetry import get_logger
from espalier_gateway.contract import Binding
from espalier_gateway.errors import ClientGone
from espalier_gateway.exchange import exchange_of
from espalier_gateway.json_values import Unfit
from espalier_gateway.json_writer import as_value
from espalier_gateway.problems import problem_of
from espalier_gateway.request_reader import set_text
from espalier_gateway.settings import GatewaySettings
from espalier_gateway.upstreams import error_of

HEARTBEAT = b": heartbeat\n\n"
END = b"event: end\ndata: {}\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

_log = get_logger(__name__)


class EventStreams:
    """Relays streaming RPCs. `draining` is set when the process is about to end: streams then break off resumably."""

    def __init__(self, settings: GatewaySettings, *, draining: asyncio.Event) -> None:
        self._settings = settings
        self._draining = draining

    def resume(self, binding: Binding, message: Message, last_event_id: str) -> None:
        """Puts the client's Last-Event-ID into the request where the RPC can resume. Raises InvalidArgument."""
        if not last_event_id or not binding.resume:
            return
        try:
            set_text(message, binding.resume, last_event_id)
        except Unfit as error:
            violation = FieldViolation("Last-Event-ID", str(error), "TYPE")
            raise InvalidArgument(f"The header Last-Event-ID {error}.", violations=[violation]) from error

    async def relay(self, binding: Binding, call: Any, request: Request, send: Send) -> None:
        """Carries one call to its end. The call is cancelled as soon as the client goes, whatever it waits for."""
        gone = asyncio.ensure_future(_disconnected(request))
        draining = asyncio.ensure_future(self._draining.wait())
        relay = _Relay(self._settings, binding=binding, call=call, send=send, request_id=_request_id(request))
        try:
            await relay.run(gone, draining)
        finally:
            call.cancel()
            gone.cancel()
            draining.cancel()


class _Relay:
    """One stream on its way."""

    def __init__(self, settings: GatewaySettings, *, binding: Binding, call: Any, send: Send, request_id: str) -> None:
        self._settings = settings
        self._call = call
        self._send = send
        self._request_id = request_id
        self._id_of = _id_reader(binding)
        self._opened = False

    async def run(self, gone: asyncio.Future[None], draining: asyncio.Future[Any]) -> None:
        """Until the RPC ends, the client goes, or the gateway does."""
        while True:
            reading = asyncio.ensure_future(self._call.read())
            while not reading.done():
                waited = {reading, gone, draining}
                await asyncio.wait(
                    waited, timeout=self._settings.heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if gone.done():
                    await _abandon(reading, self._call)
                    raise ClientGone
                if draining.done() and not reading.done():
                    await _abandon(reading, self._call)
                    await self._write(self._retry(), last=True)
                    return
                if not reading.done():
                    await self._write(HEARTBEAT)
            try:
                message = reading.result()
            except grpc.RpcError as error:
                await self._fail(error_of(error))
                return
            if message is grpc.aio.EOF:
                await self._end()
                return
            await self._write(self._event(message))

    async def _end(self) -> None:
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            await self._write(END, last=True)
            return
        error = grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), await self._call.trailing_metadata(), details=await self._call.details()
        )
        await self._fail(error_of(error))

    async def _fail(self, error: EspalierError) -> None:
        if not self._opened:
            raise error
        body = orjson.dumps(problem_of(error, self._request_id).body)
        await self._write(b"event: error\ndata: " + body + b"\n\n", last=True)

    def _event(self, message: Message) -> bytes:
        value = as_value(message)
        event_id = self._id_of(value)
        line = f"id: {event_id}\n".encode() if event_id else b""
        return line + b"data: " + orjson.dumps(value) + b"\n\n"

    def _retry(self) -> bytes:
        return f"retry: {self._settings.retry_milliseconds}\n\n".encode()

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        """Waits until the client's connection has taken the data, or gives the client up."""
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                if not self._opened:
                    self._opened = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                    data = self._retry() + data
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        except TimeoutError as error:
            _log.info("stream cut off: its reader takes nothing", seconds=self._settings.stall_seconds)
            raise ClientGone from error


def _id_reader(binding: Binding) -> Callable[[dict[str, Any]], str]:
    """The function that gives an event's id: the named field's value, or a count."""
    if not binding.event_id:
        count = iter(range(1, 1 << 62))
        return lambda _: str(next(count))
    path = binding.event_id.split(".")

    def read(value: Any) -> str:
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        text = "" if value is None else str(value)
        # A line break would end the line; a NUL makes browsers drop the id.
        return "" if any(character in text for character in "\r\n\0") else text

    return read


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _abandon(reading: asyncio.Future[Any], call: Any) -> None:
    """Cancels the call and waits for the pending read, so that no exception is left unseen."""
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)


def _request_id(request: Request) -> str:
    return exchange_of(request.scope).request_id
