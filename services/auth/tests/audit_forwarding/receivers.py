"""Real receivers of audit events on loopback: a collector of syslog, and a webhook."""

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECONDS = 60  # nobody waits longer for anything

_HEADER = re.compile(rb"<(\d+)>1 (\S+) (\S+) (\S+) (\S+) (\S+) - ")


@dataclass(frozen=True)
class Message:
    """One message of RFC 5424, taken apart."""

    priority: int
    time: str
    host: str
    application: str
    kind: str
    event: dict[str, Any]


class Ends(Enum):
    """How a collector treats a connection."""

    WELL = "it reads all and says goodbye"
    WITHOUT_GOODBYE = "it reads all and hangs up"
    KILLED = "it reads a little and is killed"


class Collector:
    """Takes one connection after the other, each as `ends` says."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._context = context
        self.ends = Ends.WELL
        self.messages: list[Message] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(SECONDS)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            plain.settimeout(SECONDS)
            with plain, suppress(OSError):
                self._take(plain)

    def _take(self, plain: socket.socket) -> None:
        connection = self._context.wrap_socket(plain, server_side=True) if self._context else plain
        ends = self.ends
        if ends is Ends.KILLED:
            connection.recv(10)
            # As the system does for a process that is killed while something is there to read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            return
        content = bytearray()
        while piece := connection.recv(65536):
            content += piece
        self.messages += read_frames(bytes(content))
        if isinstance(connection, ssl.SSLSocket):
            if ends is Ends.WELL:
                connection.unwrap()
            connection.close()


def read_frames(content: bytes) -> Iterator[Message]:
    """Messages with octet counts; what is none is an error."""
    while content:
        length, _, rest = content.partition(b" ")
        message, content = rest[: int(length)], rest[int(length) :]
        assert len(message) == int(length)
        assert b"\n" not in message
        found = _HEADER.match(message)
        assert found, message[:200]
        priority, time, host, application, process, kind = (part.decode() for part in found.groups())
        assert process == "-"
        yield Message(int(priority), time, host, application, kind, json.loads(message[found.end() :]))


@dataclass
class Webhook:
    """Answers as `statuses` say, one after the other, then 204. None: it hangs up after it has read all."""

    key: bytes
    context: ssl.SSLContext | None = None
    statuses: list[int | None] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)  # what came, confirmed or not
    sizes: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    # Answers wait for it.
    may_answer: threading.Event = field(default_factory=threading.Event)
    has_come: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def sequences(self) -> list[int]:
        return [event["sequence"] for batch in self.batches for event in batch["events"]]

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        assert handler.headers["content-type"] == "application/json"
        self._check_signature(handler, body)
        self.requests.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        self.batches.append(json.loads(body))
        self.sizes.append(len(body))
        self.has_come.set()
        assert self.may_answer.wait(SECONDS)
        status = self.statuses.pop(0) if self.statuses else 204
        handler.close_connection = True
        if status is not None:
            handler.send_response(status)
            handler.send_header("location", f"http://127.0.0.1:{self.port}/elsewhere")
            handler.send_header("content-length", "0")
            handler.end_headers()

    def _check_signature(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        signed = f"{handler.headers['webhook-id']}.{handler.headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        assert handler.headers["webhook-signature"] == f"v1,{expected}"


@contextmanager
def serving(webhook: Webhook, *, port: int = 0) -> Iterator[Webhook]:
    """Serves it for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            webhook.take(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if webhook.context:
        server.socket = webhook.context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    webhook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield webhook
    finally:
        webhook.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join(SECONDS)
