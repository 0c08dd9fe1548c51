"""REST for every RPC that has a google.api.http option. There is no code for a single one of them."""

import asyncio
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from espalier_common.errors import EspalierError, Unauthenticated
from espalier_common.rpc.permissions import PUBLIC
from espalier_common.telemetry import get_logger
from espalier_gateway.clients import Clients
from espalier_gateway.contract import Binding
from espalier_gateway.credentials import Credentials, metadata_of
from espalier_gateway.entity_tags import bind_to_state, tag_of
from espalier_gateway.errors import MethodNotAllowed
from espalier_gateway.exchange import exchange_of, raw_path_of, read_body
from espalier_gateway.json_writer import write_message
from espalier_gateway.problems import problem_of
from espalier_gateway.renewals import Renewals
from espalier_gateway.request_reader import read_request
from espalier_gateway.route_table import RouteTable
from espalier_gateway.row_files import RowFiles, wanted_format, without_format
from espalier_gateway.server_events import EventStreams
from espalier_gateway.session_cookies import SessionCookies
from espalier_gateway.settings import GatewaySettings
from espalier_gateway.upstreams import Metadata, Upstreams

JSON = "application/json"
# Reading or writing more than this takes long enough to be noticed by other requests, so a thread does it.
LARGE_BYTES = 128 << 10
LOGOUT_PATH = "/api/v1/auth/logout"

_log = get_logger(__name__)


class Transcoder:
    """The ASGI application of the platform's RPCs."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        routes: RouteTable,
        upstreams: Upstreams,
        credentials: Credentials,
        clients: Clients,
        draining: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._upstreams = upstreams
        self._credentials = credentials
        self._clients = clients
        self._streams = EventStreams(settings, draining=draining)
        self._files = RowFiles(settings, draining=draining)
        self._sessions = SessionCookies(settings, credentials)
        self._renewals = Renewals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises the error of whatever goes wrong before the answer has begun."""
        request = Request(scope, receive)
        binding, path = self._routes.find(request.method, raw_path_of(scope))
        exchange = exchange_of(scope)
        exchange.route = binding.name
        message = await self._read(binding, request, path)
        if if_match := request.headers.get("if-match", ""):
            bind_to_state(binding, message, if_match)
        metadata = [
            *metadata_of(self._token(binding, request), exchange.request_id),
            *self._clients.metadata(request),
        ]
        if binding.streams:
            await self._stream(binding, message, metadata, request, send)
        else:
            response = await self._answer(binding, message, metadata, request)
            await response(scope, receive, send)

    async def _read(self, binding: Binding, request: Request, path: dict[str, str]) -> Message:
        body = b""
        if binding.body:
            body = await read_body(request, limit=self._settings.max_body_bytes, seconds=self._settings.body_seconds)

        query: bytes = request.scope["query_string"]

        def read() -> Message:
            return read_request(
                binding,
                path=path,
                query=without_format(query) if binding.exports else query,
                body=body,
                content_type=request.headers.get("content-type", ""),
            )

        return await asyncio.to_thread(read) if len(body) > LARGE_BYTES else read()

    def _token(self, binding: Binding, request: Request) -> str:
        """A public RPC is never refused for a token that is stale or broken."""
        if binding.requires != PUBLIC:
            return self._credentials.token_of(request)
        try:
            return self._credentials.token_of(request) if "authorization" in request.headers else ""
        except Unauthenticated:
            return ""

    async def _answer(self, binding: Binding, message: Message, metadata: Metadata, request: Request) -> Response:
        rpc = binding.name
        by_cookie = self._sessions.take(rpc, message, request)
        answering = self._upstreams.ask(binding, message, metadata)
        if by_cookie and (token := self._sessions.renewed(rpc, message)):
            answering = self._renewals.share(token, answering, client=self._clients.client_of(request))
        try:
            reply = await answering
        except Unauthenticated as error:
            if by_cookie:
                return self._signed_out(error, request)
            raise
        if by_cookie and (token := self._sessions.left_behind(rpc, request)):
            await self._sign_out(token, metadata)
        until_closed = by_cookie and self._sessions.is_until_closed(rpc, message, request)
        cookies = self._sessions.give(rpc, reply, until_closed=until_closed) if by_cookie else []
        large = reply.ByteSize() > LARGE_BYTES
        content = await asyncio.to_thread(write_message, reply) if large else write_message(reply)
        response = Response(content, media_type=JSON)
        if tag := tag_of(reply):
            response.headers["etag"] = tag
        for cookie in cookies:
            response.headers.append("set-cookie", cookie)
        return response

    async def _sign_out(self, refresh_token: str, metadata: Metadata) -> None:
        """Ends the session of before: no browser has it any more. The sign-in stands whatever comes of it."""
        logout, _ = self._routes.find("POST", LOGOUT_PATH)
        message: Any = logout.request_class()
        message.refresh_token = refresh_token
        try:
            await self._upstreams.ask(logout, message, metadata)
        except EspalierError as error:
            _log.warning("the session that a new sign-in replaced could not be ended", reason=error.reason)

    def _signed_out(self, error: Unauthenticated, request: Request) -> Response:
        """A session that auth does not know any more: the browser should forget it too."""
        response = problem_of(error, exchange_of(request.scope).request_id).response()
        for cookie in self._sessions.removal():
            response.headers.append("set-cookie", cookie)
        return response

    async def _stream(
        self, binding: Binding, message: Message, metadata: Metadata, request: Request, send: Send
    ) -> None:
        if request.method == "HEAD":
            raise MethodNotAllowed("HEAD", {binding.method})
        kind = wanted_format(binding, request)
        self._streams.resume(binding, message, request.headers.get("last-event-id", ""))
        call = self._upstreams.stream(binding, message, metadata)
        if kind:
            await self._files.send(binding, call, request, send, kind=kind)
        else:
            await self._streams.relay(binding, call, request, send)
