"""Server streams as Server-Sent Events.

    id: <value of the field that the RPC's stream option names, or 1, 2, 3 …>
    data: <the message as JSON, one line>

    : heartbeat                 in each pause of 15 s, so that proxies and readers know the stream lives
    event: end                  the RPC has ended; do not reconnect
    event: error                the RPC has failed; data is the problem JSON

An error before the first message answers the request as a normal problem.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.types import Send

from espalier_common.errors import EspalierError, FieldViolation, InvalidArgument
from espalier_gateway.call_relay import EVENT_HEADERS, HEARTBEAT, CallRelay, Outlet
from espalier_gateway.contract import Binding
from espalier_gateway.exchange import exchange_of
from espalier_gateway.json_values import Unfit
from espalier_gateway.json_writer import as_value
from espalier_gateway.problems import problem_of
from espalier_gateway.request_reader import set_text
from espalier_gateway.settings import GatewaySettings

END = b"event: end\ndata: {}\n\n"


class EventStreams:
    """Relays streaming RPCs. `draining` is set when the process is about to end: streams then break off resumably."""

    def __init__(self, settings: GatewaySettings, *, draining: asyncio.Event) -> None:
        self._settings = settings
        self._relay = CallRelay(settings, draining=draining)

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
        events = _Events(self._settings, binding=binding, send=send, request_id=exchange_of(request.scope).request_id)
        await self._relay.carry(call, events, request)


class _Events:
    """One call as events."""

    def __init__(self, settings: GatewaySettings, *, binding: Binding, send: Send, request_id: str) -> None:
        self._retry = f"retry: {settings.retry_milliseconds}\n\n".encode()
        self._outlet = Outlet(settings, send)
        self._request_id = request_id
        self._id_of = _id_reader(binding)

    async def take(self, message: Message) -> None:
        value = as_value(message)
        event_id = self._id_of(value)
        line = f"id: {event_id}\n".encode() if event_id else b""
        await self._write(line + b"data: " + orjson.dumps(value) + b"\n\n")

    async def end(self) -> None:
        await self._write(END, last=True)

    async def fail(self, error: EspalierError) -> None:
        if not self._outlet.is_open:
            raise error
        body = orjson.dumps(problem_of(error, self._request_id).body)
        await self._write(b"event: error\ndata: " + body + b"\n\n", last=True)

    async def pause(self) -> None:
        await self._write(HEARTBEAT)

    async def leave(self) -> None:
        """Breaks off so that the client comes back."""
        await self._write(self._retry, last=True)

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        if not self._outlet.is_open:
            data = self._retry + data
        await self._outlet.write(data, headers=EVENT_HEADERS, last=last)


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
