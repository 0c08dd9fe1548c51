"""The gateway's process: binds its port, serves, and leaves in good order at SIGTERM."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import uvicorn

from espalier_common.ending import end_tasks
from espalier_common.settings import SettingsError, split_address
from espalier_common.telemetry import get_logger, serve_metrics
from espalier_gateway.application import Gateway, build_gateway
from espalier_gateway.connection import Connection
from espalier_gateway.edge import UNKNOWN_ROUTE, Observe
from espalier_gateway.settings import GatewaySettings

BACKLOG = 1024
KEEP_ALIVE_SECONDS = 65  # longer than the 60 s of usual load balancers, so that they close first

_log = get_logger(__name__)


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingsError when it cannot start."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    observe = _observer(settings)
    gateway = build_gateway(settings, observe=observe)
    listener = bind(settings.listen, "ESPALIER_LISTEN")
    stop_metrics = serve_metrics(settings.metrics_listen)
    server = _Server(_config(gateway, settings, observe=observe), gateway=gateway)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.leave)
    beside = asyncio.create_task(gateway.run())
    _log.info("ready", listen=settings.listen, port=listener.getsockname()[1], public_url=settings.origin)
    if not settings.nats_url:
        _log.warning("what the gateway itself refuses is not told to the audit log: ESPALIER_NATS_URL is not set")
    try:
        await server.serve(sockets=[listener])
    finally:
        await end_tasks([beside])
        await gateway.close()
        stop_metrics()
    _log.info("stopped")


def bind(address: str, variable: str) -> socket.socket:
    """A socket that listens on host:port. Raises SettingsError that names the port and the setting."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer may wait 40 ms.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} of {host} is taken by another program; stop that one or set {variable} to another port."
            ) from error
        raise SettingsError(f"Cannot listen on {address}: {error.strerror or error}; change {variable}.") from error
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """uvicorn that leaves its signals to us, and tells the streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, *, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        """Ends the process in good order; asked a second time, at once."""
        _log.info("stopping", seconds=self.config.timeout_graceful_shutdown)
        self.force_exit = self.should_exit
        self.should_exit = True
        self._gateway.draining.set()


def _config(gateway: Gateway, settings: GatewaySettings, *, observe: Observe | None = None) -> uvicorn.Config:
    def note(status: int) -> None:
        if observe is not None:
            observe("INVALID", UNKNOWN_ROUTE, status, 0.0)

    return uvicorn.Config(
        gateway.app,
        http=cast(type[asyncio.Protocol], partial(Connection, settings=settings, note=note)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )


def _is_news(record: logging.LogRecord) -> bool:
    """That an answer was broken off is no defect: the edge tells of it with its request."""
    return "without completing response" not in record.getMessage()


def _observer(settings: GatewaySettings) -> Any:
    if not settings.metrics_listen:
        return None
    from espalier_gateway.metrics import HttpMetrics

    return HttpMetrics().observe
