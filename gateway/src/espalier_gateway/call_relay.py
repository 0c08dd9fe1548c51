"""One streaming RPC on its way into the answer of one HTTP request, whatever form it takes there.

One message is read from the service only after the one before was taken by the client, so a slow reader slows its own
stream and nothing piles up. The call is cancelled as soon as the client goes, whatever it waits for.
"""

import asyncio
from typing import Any, Protocol

import grpc
import grpc.aio
from starlette.requests import Request
from starlette.types import Send

from espalier_common.errors import EspalierError
from espalier_common.telemetry import get_logger
from espalier_gateway.errors import ClientGone
from espalier_gateway.settings import GatewaySettings
from espalier_gateway.upstreams import error_of

Headers = list[tuple[bytes, bytes]]

EVENT_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
HEARTBEAT = b": heartbeat\n\n"

_log = get_logger(__name__)


class Form(Protocol):
    """What becomes of a call in the answer."""

    async def take(self, message: Any) -> None:
        """A message has come."""

    async def end(self) -> None:
        """The RPC has ended well."""

    async def fail(self, error: EspalierError) -> None:
        """The RPC has failed; may raise the error as long as nothing was sent."""

    async def pause(self) -> None:
        """Nothing came for as long as between two heartbeats."""

    async def leave(self) -> None:
        """The gateway stops: the answer ends here."""


class CallRelay:
    """Carries calls to their end. `draining` is set when the process is about to end."""

    def __init__(self, settings: GatewaySettings, *, draining: asyncio.Event) -> None:
        self._heartbeat_seconds = settings.heartbeat_seconds
        self._draining = draining

    async def carry(self, call: Any, form: Form, request: Request) -> None:
        """Until the RPC ends, the client goes, or the gateway does. Raises ClientGone, and what the form raises."""
        gone = asyncio.ensure_future(_disconnected(request))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await self._carry(call, form, gone, draining)
        finally:
            call.cancel()
            gone.cancel()
            draining.cancel()

    async def _carry(self, call: Any, form: Form, gone: asyncio.Future[None], draining: asyncio.Future[Any]) -> None:
        while True:
            reading = asyncio.ensure_future(call.read())
            while not reading.done():
                waited = {reading, gone, draining}
                await asyncio.wait(waited, timeout=self._heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    await _abandon(reading, call)
                    raise ClientGone
                if draining.done() and not reading.done():
                    await _abandon(reading, call)
                    await form.leave()
                    return
                if not reading.done():
                    await form.pause()
            try:
                message = reading.result()
            except grpc.RpcError as error:
                await form.fail(error_of(error))
                return
            if message is grpc.aio.EOF:
                await _finish(call, form)
                return
            await form.take(message)


class Outlet:
    """The way to the client; a client that takes nothing for so long is given up."""

    def __init__(self, settings: GatewaySettings, send: Send) -> None:
        self._stall_seconds = settings.stall_seconds
        self._send = send
        self.is_open = False

    async def write(self, data: bytes, *, headers: Headers, last: bool = False) -> None:
        """Waits until the client's connection has taken the data. The headers go first, once. Raises ClientGone."""
        try:
            async with asyncio.timeout(self._stall_seconds):
                if not self.is_open:
                    self.is_open = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        except TimeoutError as error:
            _log.info("stream cut off: its reader takes nothing", seconds=self._stall_seconds)
            raise ClientGone from error


async def _finish(call: Any, form: Form) -> None:
    code = await call.code()
    if code is grpc.StatusCode.OK:
        await form.end()
        return
    error = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), await call.trailing_metadata(), details=await call.details()
    )
    await form.fail(error_of(error))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _abandon(reading: asyncio.Future[Any], call: Any) -> None:
    """Cancels the call and waits for the pending read, so that no exception is left unseen."""
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)
