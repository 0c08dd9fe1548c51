"""The gateway put together: one ASGI application out of its parts."""

import asyncio
from pathlib import Path

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from espalier_common.bus import Bus
from espalier_common.errors import Unavailable
from espalier_common.identity import ServiceIdentity, TokenVerifier
from espalier_common.rpc.server import open_verifier
from espalier_common.uploads import UploadStore
from espalier_gateway.audit_trail import AuditTrail
from espalier_gateway.backchannel_logout import PATH as BACKCHANNEL_LOGOUT
from espalier_gateway.backchannel_logout import BackchannelLogout
from espalier_gateway.callers import Callers
from espalier_gateway.clients import Clients
from espalier_gateway.console import Console, find_console
from espalier_gateway.contract import read_contract
from espalier_gateway.credentials import CookieNames, Credentials
from espalier_gateway.docs.pages import DocsPages
from espalier_gateway.edge import Edge, Observe
from espalier_gateway.endpoint import endpoint
from espalier_gateway.errors import RouteNotFound
from espalier_gateway.files.routes import Files
from espalier_gateway.health import HealthPages
from espalier_gateway.openai.routes import openai_routes
from espalier_gateway.route_table import RouteTable
from espalier_gateway.settings import GatewaySettings
from espalier_gateway.transcoder import Transcoder
from espalier_gateway.upstreams import Upstreams

NAME = "gateway"


class Gateway:
    """The application `app`, and what its process must do at the end: set `draining`, later call `close`."""

    def __init__(
        self,
        app: ASGIApp,
        upstreams: Upstreams,
        draining: asyncio.Event,
        *,
        verifier: TokenVerifier,
        audit: tuple[Bus, AuditTrail] | None = None,
    ) -> None:
        self.app = app
        self.draining = draining
        self._upstreams = upstreams
        self._verifier = verifier
        self._audit = audit

    async def run(self) -> None:
        """What goes on beside the requests: auth's keys, the tokens that it takes back, and the audit log."""
        async with asyncio.TaskGroup() as tasks:
            if self._verifier.revocations is not None:
                tasks.create_task(self._verifier.fetch_keys())
                tasks.create_task(self._verifier.revocations.run())
            if self._audit is not None:
                bus, trail = self._audit
                await bus.start()
                tasks.create_task(trail.run())

    async def close(self) -> None:
        """Tells the audit log what is left, and closes the channels to the services."""
        if self._audit is not None:
            bus, trail = self._audit
            await trail.close()
            await bus.close()
        await self._upstreams.close()


def build_gateway(
    settings: GatewaySettings,
    *,
    verifier: TokenVerifier | None = None,
    console: Path | None = None,
    observe: Observe | None = None,
) -> Gateway:
    """Wires the gateway. `verifier` and `console` are for tests; by default auth's keys and the built files."""
    contract = read_contract()
    draining = asyncio.Event()
    upstreams = Upstreams(settings.services, call_seconds=settings.call_seconds)
    cookies = CookieNames.of(secure=settings.secure_cookies)
    credentials = Credentials(cookies)
    identity = _identity(settings)
    verifier = verifier or _verifier(settings, identity)
    callers = Callers(credentials, verifier)
    clients = Clients(settings, identity)
    audit = _audit(settings, clients)
    store = UploadStore(settings.artifacts_url) if settings.artifacts_url else None
    transcoder = Transcoder(
        settings,
        routes=RouteTable(contract),
        upstreams=upstreams,
        credentials=credentials,
        clients=clients,
        draining=draining,
    )
    logout = BackchannelLogout(settings, upstreams=upstreams, clients=clients)
    health = HealthPages(upstreams, clients=clients, draining=draining)

    def build_openapi() -> bytes:
        from espalier_gateway.openapi.document import build_document

        return build_document(contract, origin=settings.origin, cookies=cookies)

    router = Router(
        [
            endpoint("/healthz", GET=health.live),
            endpoint("/readyz", GET=health.ready),
            endpoint(BACKCHANNEL_LOGOUT, POST=logout.take),
            *DocsPages(settings, callers=callers, build=build_openapi).routes(),
            *Files(settings, store=store, callers=callers).routes(),
            *openai_routes(settings, upstreams=upstreams, credentials=credentials, clients=clients, draining=draining),
        ],
        redirect_slashes=False,
        default=Console(console or find_console()),
    )
    edge = Edge(_first(transcoder, router), settings, observe=observe, trail=audit[1] if audit else None)
    return Gateway(edge, upstreams, draining, verifier=verifier, audit=audit)


def _audit(settings: GatewaySettings, clients: Clients) -> tuple[Bus, AuditTrail] | None:
    """The bus, and what tells the audit log over it; None where there is no bus."""
    if not settings.nats_url:
        return None
    bus = Bus(settings.nats_url, name=NAME, makes_streams=False)
    return bus, AuditTrail(clients, bus)


def _first(transcoder: Transcoder, others: ASGIApp) -> ASGIApp:
    """RPCs first; what none of them answers may be a file, a page of the docs or the console."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await transcoder(scope, receive, send)
        except RouteNotFound:
            await others(scope, receive, send)

    return answer


def _identity(settings: GatewaySettings) -> ServiceIdentity | None:
    address, secret = settings.services.get("auth"), settings.service_secret.get_secret_value()
    return ServiceIdentity(address, name=NAME, secret=secret) if address and secret else None


def _verifier(settings: GatewaySettings, identity: ServiceIdentity | None) -> TokenVerifier:
    if "auth" not in settings.services:
        return TokenVerifier(_no_keys)
    return open_verifier(settings, name=NAME, identity=identity)


def _no_keys() -> list[dict[str, str]]:
    raise Unavailable("ESPALIER_SERVICES of the gateway names no address of 'auth'; add it.")
