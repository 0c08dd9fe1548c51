"""One connection of a client: uvicorn's, with bounds on what a client may send and on how long it may take.

uvicorn bounds neither the head of a request nor the time for it, and what it cannot read it answers as text. Here every
refusal has the form of all others, the head its bounds, and whoever neither sends nor takes anything is let go:

- the head of a request, and what is left of a body after its answer, have `head_seconds`;
- of an answer that waits to be taken a piece must go in each `stall_seconds`.
"""

from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from espalier_common.errors import EspalierError
from espalier_common.rpc.context import accept_request_id
from espalier_common.telemetry import get_logger
from espalier_gateway.errors import HeadersTooLarge, MalformedRequest, MethodNotAllowed, RequestTooSlow, TargetTooLong
from espalier_gateway.openai.errors import error_response, speaks_openai
from espalier_gateway.problems import phrase_of, problem_of
from espalier_gateway.security_headers import common_headers
from espalier_gateway.settings import GatewaySettings

MAX_TARGET_BYTES = 65_535  # the parser counts them in 16 bits
MAX_HEADER_BYTES = 64 << 10
MAX_HEADERS = 200
LEAST_BYTES = 4096  # that a reader takes in each span of `stall_seconds`
LINGER_SECONDS = 5.0
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST")

_log = get_logger(__name__)


class Connection(HttpToolsProtocol):
    """Speaks HTTP/1.1 with one client. `note` hears the status of each refusal that no application saw."""

    def __init__(self, *args: Any, settings: GatewaySettings, note: Callable[[int], None] | None, **named: Any) -> None:
        super().__init__(*args, **named)
        self.url = b""
        self._settings = settings
        self._note = note
        self._running: RequestResponseCycle | None = None
        self._refusal: EspalierError | None = None
        self._is_refused = False
        self._in_head = True
        self._unread = 0  # bytes since the parser last made something of them
        self._header_bytes = 0
        self._idle_since = self.loop.time()
        self._has_sent = False
        self._unsent, self._unsent_since = 0, self._idle_since
        self._watch: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._unset_keepalive_if_required()
        # Of several requests on the way uvicorn tells the last alone that its client is gone.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        if not self._has_sent and not self._is_answering():
            self._has_sent, self._idle_since = True, self.loop.time()
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
            self._check_unread()
        except httptools.HttpParserUpgrade:
            # Nothing else is spoken here: the request is answered as if it had not asked, and is the last.
            self._is_refused, self.cycle.keep_alive = True, False
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or _malformed(error))
        except EspalierError as error:
            self._refuse(error)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._header_bytes = True, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._fail(_target_too_long())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            self._fail(_headers_too_large())
        # Fields after a chunked body would pass for headers, which nobody in front of us has seen as such.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # The parser itself would tell another coding only when the request is on its way.
        if any(name == b"transfer-encoding" and value.strip().lower() != b"chunked" for name, value in self.headers):
            self._fail(MalformedRequest("Of the transfer codings chunked alone is read here."))
        super().on_headers_complete()
        self._in_head, self._has_sent, self._unread, self._header_bytes = False, False, 0, 0

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._unread = True, 0
        super().on_message_complete()
        if not self._is_answering():
            # The rest of a body that nobody wanted is over, and the connection as good as new.
            self._has_sent = False
            self._keep_alive()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size() == 0:
            super().timeout_keep_alive_handler()
        else:
            self._keep_alive()

    def _keep_alive(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _check_unread(self) -> None:
        """Raises what a part of a request that never ends is refused with."""
        if self._unread > MAX_TARGET_BYTES + MAX_HEADER_BYTES:
            raise _headers_too_large() if self._in_head else MalformedRequest("The body has a chunk that never begins.")

    def _fail(self, error: EspalierError) -> None:
        """Within a callback of the parser, which hides what it raises."""
        self._refusal = error
        raise error

    def _look_again(self) -> None:
        """Lets go whoever holds the connection and does nothing with it."""
        now = self.loop.time()
        if self._is_stalled(now):
            _log.info("connection cut off: its reader takes nothing", seconds=self._settings.stall_seconds)
            self.transport.abort()
        elif not self._is_answering() and not self._is_refused and self._is_too_slow(now):
            if self._in_head and self._has_sent:
                self._refuse(_too_slow(self._settings.head_seconds))
            else:
                self.transport.close()
        seconds = min(self._settings.head_seconds, self._settings.stall_seconds) / 4
        self._watch = self.loop.call_later(seconds, self._look_again)

    def _is_too_slow(self, now: float) -> bool:
        is_kept_alive = self._running is not None and not self._has_sent and self._in_head
        return not is_kept_alive and now - self._idle_since > self._settings.head_seconds

    def _is_stalled(self, now: float) -> bool:
        """Whether what is written waits, nothing is added to it, and it becomes no less."""
        waiting = self.transport.get_write_buffer_size()
        is_settled = self.flow.write_paused or not self._is_answering()
        if not is_settled or waiting <= max(self._unsent - LEAST_BYTES, 0) or waiting > self._unsent:
            self._unsent, self._unsent_since = waiting, now
        return now - self._unsent_since > self._settings.stall_seconds

    def _refuse(self, error: EspalierError) -> None:
        """Answers what is no request, and ends the connection."""
        self._is_refused = True
        self._unset_keepalive_if_required()
        running = self._running
        if running is not None and self._is_answering() and not self._ends_before(running):
            return
        if not self._in_head and not self._is_answering():
            self.transport.close()  # what is broken is the rest of a body whose request is answered
            return
        response = self._response(error)
        if not self.transport.is_closing():
            self.transport.write(self._bytes_of(response))
            # Closed with bytes of the client unread, it would see a reset and not the answer.
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        address = self.client[0] if self.client else ""
        _log.info("request refused", status=response.status_code, reason=error.reason, address=address)
        if self._note is not None:
            self._note(response.status_code)

    def _ends_before(self, running: RequestResponseCycle) -> bool:
        """Whether the request that is being answered is the one that is broken, and nothing of its answer is out."""
        if running is self.cycle and running.more_body and not running.response_started:
            running.disconnected = True
            running.message_event.set()
            return True
        # What was asked before is answered; then the connection ends, which is all that can be said.
        if self.pipeline:
            self.transport.close()
        running.keep_alive = False
        return False

    def _response(self, error: EspalierError) -> Response:
        headers = dict(self.headers or ())
        request_id = accept_request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        path = self.url.partition(b"?")[0].decode("latin-1")
        response = error_response(error) if speaks_openai(path) else problem_of(error, request_id).response()
        response.headers["connection"] = "close"
        response.headers["date"] = formatdate(usegmt=True)
        response.headers["x-request-id"] = request_id
        return response

    def _bytes_of(self, response: Response) -> bytes:
        head = f"HTTP/1.1 {response.status_code} {phrase_of(response.status_code)}\r\n".encode()
        own = {name for name, _ in response.raw_headers}
        common = [header for header in common_headers(self._settings) if header[0] not in own]
        lines = [b"%s: %s\r\n" % header for header in (*response.raw_headers, *common)]
        return b"".join([head, *lines, b"\r\n", bytes(response.body)])


def _malformed(error: httptools.HttpParserError) -> EspalierError:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return MethodNotAllowed("This method", METHODS)
    if isinstance(error, httptools.HttpParserCallbackError):
        return MalformedRequest("The target of the request is no path that can be read, such as /api/v1/me.")
    reason = str(error).strip().rstrip(".") or "it is broken"
    return MalformedRequest(f"This is no HTTP/1.1 request that can be read: {reason}.")


def _target_too_long() -> EspalierError:
    return TargetTooLong(
        f"The address of the request is longer than {MAX_TARGET_BYTES} bytes; ask for less at a time, or send what is "
        "long in the body of a POST."
    )


def _headers_too_large() -> EspalierError:
    return HeadersTooLarge(
        f"The request has more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them; leave some out, or "
        "delete the cookies of this site."
    )


def _too_slow(seconds: float) -> EspalierError:
    return RequestTooSlow(f"The headers of the request did not arrive within {seconds:g} s.")
