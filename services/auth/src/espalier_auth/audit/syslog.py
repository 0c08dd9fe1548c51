"""Audit events by syslog: messages of RFC 5424 with octet counts, over TLS (RFC 5425) or plain TCP (RFC 6587).

Syslog has no answers. Therefore each batch has a connection of its own, and the orderly end of it confirms the batch:
who has read all that came, and the end behind it, ends his side too. One that dies before that resets the connection.
"""

import array
import fcntl
import re
import socket
import ssl
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC

from espalier_auth.audit.destinations import Outgoing, Undelivered

CONNECT_SECONDS, SEND_SECONDS = 5.0, 20.0
PIECE = 64 << 10

_LOG_AUDIT = 13  # facility
_SEVERITY = {"DONE": 6, "REFUSED": 4, "FAILED": 3}  # informational, warning, error
_NOT_PRINTABLE = re.compile(r"[^!-~]")


class Syslog:
    """A collector."""

    def __init__(self, host: str, port: int, *, context: ssl.SSLContext | None) -> None:
        self._host, self._port = host, port
        self._context = context

    def send(self, events: Sequence[Outgoing]) -> None:
        content = b"".join(frame(event, host=socket.gethostname()) for event in events)
        try:
            with socket.create_connection((self._host, self._port), timeout=CONNECT_SECONDS) as plain:
                if self._context is None:
                    _deliver(plain, content)
                else:
                    with self._context.wrap_socket(plain, server_hostname=self._host) as encrypted:
                        _deliver(encrypted, content)
        except OSError as error:  # those of TLS and of time are among them
            raise Undelivered(f"{type(error).__name__}: {error}") from error


def frame(event: Outgoing, *, host: str) -> bytes:
    """One message, its length before it."""
    moment = event.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    priority = _LOG_AUDIT * 8 + _SEVERITY[event.result]
    kind = _name(event.action.rpartition("/")[2], 32)
    message = f"<{priority}>1 {moment} {_name(host, 255)} espalier - {kind} - ".encode() + event.json
    return b"%d %b" % (len(message), message)


def _name(text: str, length: int) -> str:
    return _NOT_PRINTABLE.sub("", text)[:length] or "-"


def _deliver(connection: socket.socket, content: bytes) -> None:
    deadline = time.monotonic() + SEND_SECONDS
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(content), PIECE):
        _allow(connection, deadline)
        connection.sendall(content[start : start + PIECE])
    _allow(connection, deadline)
    if isinstance(connection, ssl.SSLSocket):
        with suppress(ssl.SSLEOFError):  # RFC 5425 wants a goodbye for a goodbye, but rsyslog just hangs up
            connection.unwrap()
    else:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(PIECE):
            _allow(connection, deadline)
    if _on_the_way(connection):
        raise ConnectionResetError("it closed the connection before it had taken everything")


def _allow(connection: socket.socket, deadline: float) -> None:
    connection.settimeout(max(0.001, deadline - time.monotonic()))


def _on_the_way(connection: socket.socket) -> int:
    """Bytes that the other machine has not acknowledged."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count, True)
    return count[0]
