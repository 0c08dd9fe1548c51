"""The one server: what a service is made of, and how its process lives.

settings → build(settings) → migrate → on_start → gRPC up → bus, background → ready … SIGTERM → drain → closed
"""

import argparse
import asyncio
import importlib.util
import inspect
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from espalier_common.api_keys import exchange_at
from espalier_common.ending import end_tasks
from espalier_common.group_peers import GroupPeers, fetch_peers
from espalier_common.identity import ServiceIdentity, TokenVerifier
from espalier_common.public_keys import fetch_jwks
from espalier_common.revocations import Revocations, fetch_revocations
from espalier_common.rpc.bare_channel import MAX_MESSAGE_BYTES
from espalier_common.rpc.edge import Edge, plan_methods
from espalier_common.settings import ServiceSettings, SettingsError, read_settings
from espalier_common.telemetry import configure_logging, get_logger, serve_metrics

if TYPE_CHECKING:
    from espalier_common.audit.trail import AuditTrail
    from espalier_common.bus import Bus
    from espalier_common.db import Database
    from espalier_common.rpc.health import Health

EXIT_CONFIG = 78
DRAIN_SECONDS = 10.0
READINESS_PAUSE = 2.0  # seconds between two rounds of readiness checks

Background = Callable[[], Awaitable[None]]
ServicerEntry = tuple[Callable[[Any, grpc.aio.Server], None], Any, ServiceDescriptor]
Settings = TypeVar("Settings", bound=ServiceSettings)

SERVER_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.so_reuseport", 0),  # a second process on the same port must fail, not share it
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Service:
    """Everything a service's process runs. `name` is its folder, `package` holds its migrations.

    `background` are coroutine functions without arguments that run as long as the process; one that fails is logged
    and started again. `readiness` are plain functions, run in a thread; the service is ready while all give True.
    `on_start` are plain functions run once, after the migrations and before the server listens.
    `threads` bounds the plain handlers that run at the same time. `on_drain` runs before calls get their time to end,
    for work that would not end by itself; `on_stop` runs after the last call.
    `commands` are what the process can do instead of serving, such as `python -m espalier_auth rotate-keys`; they take
    the words behind their name.
    """

    name: str
    package: str
    settings: ServiceSettings
    servicers: Sequence[ServicerEntry]
    database: "Database | None" = None
    bus: "Bus | None" = None
    verifier: TokenVerifier | None = None
    peers: GroupPeers | None = None
    background: Sequence[Background] = ()
    readiness: Mapping[str, Callable[[], bool]] = field(default_factory=dict)
    on_start: Sequence[Callable[[], None]] = ()
    on_drain: Sequence[Background] = ()
    on_stop: Sequence[Background] = ()
    commands: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    threads: int = 8


def run(
    settings_type: type[Settings], build: Callable[[Settings], Service], *, commands: Sequence[str] = ()
) -> NoReturn:
    """The `main` of a service: `python -m espalier_<name> [serve|migrate|<one of its own>]`. Ends the process."""
    parser = argparse.ArgumentParser(prog=f"python -m {_package_run()}")
    parser.add_argument("command", nargs="?", choices=["serve", "migrate", *commands], default="serve")
    parser.add_argument("words", nargs="*", help="what the command is about")
    given = parser.parse_args()
    command: str = given.command
    try:
        service = build(read_settings(settings_type))
        configure_logging(service.name, service.settings.log_level)
        if command == "migrate" or service.settings.migrate_on_start:
            _migrate(service)
        if command == "serve":
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(serve(service))
        if command in service.commands:
            _check_words(service.commands[command], command, given.words)
            service.commands[command](*given.words)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_CONFIG)
    sys.exit(0)


def _check_words(work: Callable[..., None], command: str, words: Sequence[str]) -> None:
    try:
        inspect.signature(work).bind(*words)
    except TypeError as error:
        raise SettingsError(f"The words behind {command} are too few or too many: {error}.") from None


async def serve(service: Service) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingsError when it cannot start."""
    for prepare in service.on_start:
        prepare()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = await start(service)
    try:
        await stop.wait()
        _log.info("stopping", seconds=DRAIN_SECONDS)
    finally:
        await running.stop()
    _log.info("stopped")


async def start(service: Service) -> "RunningService":
    """Binds, serves and begins the background tasks; gives the handle that stops them all."""
    from espalier_common.rpc.health import Health

    draining = asyncio.Event()
    pool = ThreadPoolExecutor(service.threads, thread_name_prefix="rpc")
    stop_metrics = serve_metrics(service.settings.metrics_listen)
    verifier = service.verifier or open_verifier(service.settings, name=service.name)
    trail = _trail(service)
    edge = Edge(
        plan_methods(_descriptors(service)),
        verifier=verifier,
        peers=service.peers or _peers(service),
        pool=pool,
        draining=draining,
        metrics=_metrics(service),
        trail=trail,
    )
    server = grpc.aio.server(interceptors=[edge], options=SERVER_OPTIONS)
    for add, servicer, descriptor in service.servicers:
        _check_implemented(servicer, descriptor)
        add(servicer, server)
    health = Health(_readiness(service))
    health.add_to(server, [descriptor.full_name for descriptor in _descriptors(service)])
    await health.begin()
    port = _bind(server, service.settings.listen)
    await server.start()
    running = RunningService(
        service,
        port=port,
        server=server,
        health=health,
        draining=draining,
        verifier=verifier,
        trail=trail,
        closers=[stop_metrics, partial(pool.shutdown, wait=False, cancel_futures=True)],
    )
    await running.begin()
    return running


class RunningService:
    """A service that serves; `port` is the port bound."""

    def __init__(
        self,
        service: Service,
        *,
        port: int,
        server: grpc.aio.Server,
        health: "Health",
        draining: asyncio.Event,
        verifier: TokenVerifier,
        trail: "AuditTrail | None",
        closers: Sequence[Callable[[], None]],
    ) -> None:
        self.port = port
        self._service = service
        self._server = server
        self._health = health
        self._draining = draining
        self._verifier = verifier
        self._trail = trail
        self._closers = closers
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Connects the bus and starts the background tasks; returns at once, all of them outlive failures."""
        calls: list[Background] = list(self._service.background)
        if self._verifier.revocations is not None:
            calls.append(self._verifier.revocations.run)
        if self._service.verifier is None:
            calls.append(self._verifier.fetch_keys)
        if self._trail is not None:
            calls.append(self._trail.run)
        if self._service.bus is not None:
            await self._service.bus.start()
        self._tasks = [asyncio.create_task(_keep_running(call)) for call in calls]
        self._tasks.append(asyncio.create_task(self._watch_readiness()))

    async def stop(self, grace: float = DRAIN_SECONDS) -> None:
        """Not ready any more, running calls get `grace` seconds, then everything is closed."""
        self._draining.set()
        await self._health.leave()
        for call in self._service.on_drain:
            await call()
        await self._server.stop(grace)
        await end_tasks(self._tasks)
        for call in self._service.on_stop:
            await call()
        if self._trail is not None:
            await self._trail.close()
        if self._service.bus is not None:
            await self._service.bus.close()
        if self._service.database is not None:
            await asyncio.to_thread(self._service.database.close)
        for close in self._closers:
            await asyncio.to_thread(close)

    async def _watch_readiness(self) -> None:
        said_ready = False
        while True:
            ready = await self._health.refresh()
            if ready and not said_ready:
                said_ready = True
                _log.info("ready", listen=self._service.settings.listen, port=self.port)
            # Quick at first, so that start-up is not lengthened by a check that came a moment too early.
            await asyncio.sleep(READINESS_PAUSE if ready else 0.1)


def open_verifier(settings: ServiceSettings, *, name: str, identity: ServiceIdentity | None = None) -> TokenVerifier:
    """Checks tokens with auth's keys and against what auth took back, asked for in the name of this service."""
    address = settings.address_of("auth")
    secret = settings.service_secret.get_secret_value()
    own = identity or ServiceIdentity(address, name=name, secret=secret)
    revocations = Revocations(fetch_revocations(address, token=own.token))
    return TokenVerifier(fetch_jwks(address), exchange=exchange_at(address), revocations=revocations)


async def _keep_running(call: Background) -> None:
    pause = 0.5
    name = getattr(call, "__qualname__", repr(call))
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await call()
        except Exception:
            _log.exception("background task failed, starting it again", task=name, pause_seconds=pause)
        else:
            return
        ran_well = asyncio.get_running_loop().time() - started > 60
        pause = 0.5 if ran_well else min(pause * 2, 30.0)
        await asyncio.sleep(pause)


def _peers(service: Service) -> GroupPeers | None:
    # Auth verifies with its own keys, and knows the groups without asking.
    return None if service.verifier else GroupPeers(fetch_peers(service.settings.address_of("auth")))


def _trail(service: Service) -> "AuditTrail | None":
    """What is told goes through the outbox, so it takes a database, and a bus that the outbox is relayed to."""
    if service.database is None or service.bus is None:
        return None
    from espalier_common.audit.trail import AuditTrail

    return AuditTrail(service.database, service=service.name)


def _readiness(service: Service) -> dict[str, Callable[[], bool]]:
    checks = dict(service.readiness)
    if service.database is not None:
        checks["database"] = service.database.check
    return checks


def _descriptors(service: Service) -> list[ServiceDescriptor]:
    return [descriptor for _, _, descriptor in service.servicers]


def _check_implemented(servicer: object, descriptor: ServiceDescriptor) -> None:
    for method in descriptor.methods:
        handler = getattr(servicer, method.name, None)
        if handler is None or handler.__module__.endswith("_pb2_grpc"):
            raise SettingsError(f"{type(servicer).__name__} does not implement {method.full_name}.")
        if method.server_streaming and not inspect.isasyncgenfunction(handler):
            raise SettingsError(f"{method.full_name} streams: its handler must be an async generator.")


def _bind(server: grpc.aio.Server, listen: str) -> int:
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise SettingsError(f"Cannot listen on {listen}: is the port taken? Set ESPALIER_LISTEN.") from error
    if port == 0:
        raise SettingsError(f"Cannot listen on {listen}: is the port taken? Set ESPALIER_LISTEN.")
    return port


def _metrics(service: Service) -> Any:
    if not service.settings.metrics_listen:
        return None
    from espalier_common.rpc.metrics import RpcMetrics

    return RpcMetrics()


def _migrate(service: Service) -> None:
    from espalier_common.migrations import migrate

    if service.settings.database_url:
        migrate(service.package, service.settings.database_url)


def _package_run() -> str:
    """Name after `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.parent if spec is not None else "espalier_service"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
