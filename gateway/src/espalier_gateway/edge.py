"""What every HTTP request passes, in this order: request id → log, metrics → errors → Host, Origin → the handlers."""

import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espalier_common.errors import EspalierError, Internal
from espalier_common.rpc.context import accept_request_id
from espalier_common.telemetry import get_logger, request_id_var
from espalier_gateway.audit_trail import AuditTrail
from espalier_gateway.errors import ClientGone, HostRefused, OriginRefused, UnsupportedMedia
from espalier_gateway.exchange import SAFE_METHODS, Exchange, exchange_of
from espalier_gateway.openai.errors import error_response, speaks_openai
from espalier_gateway.problems import problem_of
from espalier_gateway.security_headers import common_headers
from espalier_gateway.settings import GatewaySettings

CLIENT_CLOSED_REQUEST = 499
PROBES = frozenset({"/healthz", "/readyz"})
UNKNOWN_ROUTE = "unknown"

Observe = Callable[[str, str, int, float], None]
"""Takes method, route, status and seconds of a finished request."""

_log = get_logger(__name__)


class Edge:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        settings: GatewaySettings,
        *,
        observe: Observe | None = None,
        trail: AuditTrail | None = None,
    ) -> None:
        self._app = app
        self._trail = trail
        self._guard = Guard(settings)
        self._headers = common_headers(settings)
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens below."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        exchange = Exchange(accept_request_id(headers.get("x-request-id")))
        exchange.put(scope)
        request_id_var.set(exchange.request_id)
        answer = _Answer(send, request_id=exchange.request_id, headers=self._headers)
        started = time.perf_counter()
        try:
            await self._handle(scope, receive, answer, headers)
        finally:
            self._note(scope, exchange, answer, time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive, answer: "_Answer", headers: Headers) -> None:
        try:
            self._guard.check(scope, headers)
            await self._app(scope, receive, answer)
        except ClientGone:
            answer.status = CLIENT_CLOSED_REQUEST
        except EspalierError as error:
            await self._tell(error, scope, receive, answer)
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"][:500])
            await self._tell(Internal(), scope, receive, answer)

    async def _tell(self, error: EspalierError, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        exchange_of(scope).error = error
        if answer.begun:
            # Half an answer is out; breaking off is the only way left to say that it is not whole.
            answer.broken = True
            return
        if speaks_openai(scope["path"]):
            response = error_response(error)
        else:
            response = problem_of(error, answer.request_id).response()
        await response(scope, receive, answer)

    def _note(self, scope: Scope, exchange: Exchange, answer: "_Answer", seconds: float) -> None:
        method: str = scope["method"] if scope["method"].isalpha() else "INVALID"
        if scope["path"] not in PROBES:
            # The path alone: a query may carry what is nobody's business in a log.
            _log.info(
                "request",
                method=method[:20],
                path=scope["path"][:500],
                route=exchange.route,
                status=answer.status,
                ms=round(seconds * 1000, 1),
                bytes=answer.size,
                broken=answer.broken,
            )
        if self._trail is not None:
            self._trail.note(scope, exchange, answer.status)
        if self._observe is not None:
            self._observe(method[:20], exchange.route or UNKNOWN_ROUTE, answer.status, seconds)


class Guard:
    """Refuses requests under a foreign name (DNS rebinding), of a foreign page (CSRF), and with a packed body."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._hosts = settings.hosts
        self._origin = settings.origin

    def check(self, scope: Scope, headers: Headers) -> None:
        """Raises HostRefused, OriginRefused or UnsupportedMedia."""
        hosts = headers.getlist("host")
        # Two are a contradiction that a proxy in front may have read otherwise (RFC 9112, 3.2).
        host = hosts[0] if len(hosts) == 1 else ""
        # Kubernetes asks its probes under the address of the pod.
        if scope["path"] not in PROBES and _hostname(host) not in self._hosts:
            raise HostRefused(
                f"The host {host[:100]!r} is not served here; the operator may add it to ESPALIER_ALLOWED_HOSTS."
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE_METHODS and not self._is_own(origin, host):
            raise OriginRefused(f"Requests from pages of {origin[:100]!r} are not accepted.")
        coding = headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            # Unpacked by nobody: it would be kept as it is, or read as broken JSON.
            raise UnsupportedMedia(
                f"A body in the coding {coding[:100]!r} is not read here; send it as it is.",
                headers={"accept-encoding": "identity"},
            )

    def _is_own(self, origin: str, host: str) -> bool:
        """A page of the platform itself: its public URL, or the very host that was asked."""
        if origin.lower() == self._origin:
            return True
        scheme, _, rest = origin.lower().partition("://")
        return scheme in {"http", "https"} and rest == host.lower()


@lru_cache(maxsize=256)
def _hostname(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        return "" if parts.username is not None or parts.path or parts.query else (parts.hostname or "").lower()
    except ValueError:
        return ""


class _Answer:
    """The `send` of a request, with common headers added and what the log needs kept."""

    def __init__(self, send: Send, *, request_id: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.request_id = request_id
        self.status = 0
        self.size = 0
        self.begun = False
        self.broken = False
        self._send = send
        self._headers = headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            own += [header for header in self._headers if header[0] not in names]
            message = {**message, "headers": [*own, (b"x-request-id", self.request_id.encode())]}
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)
