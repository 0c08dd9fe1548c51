"""Where identity providers tell that a session there has ended (OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8).

They post a form and nothing else about themselves: what counts is the signed token in it, which auth checks.
"""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from espalier_common.errors import InvalidArgument, Unauthenticated
from espalier_common.rpc.permissions import all_services
from espalier_gateway.clients import Clients
from espalier_gateway.contract import Binding, bind
from espalier_gateway.credentials import metadata_of
from espalier_gateway.errors import MalformedRequest, UnsupportedMedia
from espalier_gateway.exchange import exchange_of, read_body
from espalier_gateway.request_reader import parse_query
from espalier_gateway.settings import GatewaySettings
from espalier_gateway.upstreams import Upstreams

PATH = "/api/v1/auth/oidc/{provider}/backchannel-logout"
MAX_BODY_BYTES = 32 << 10
_RPC = "espalier.auth.v1.OidcService.EndProviderSessions"
_FORM = "application/x-www-form-urlencoded"
_NOT_KEPT = {"cache-control": "no-store"}


class BackchannelLogout:
    """The route of every provider."""

    def __init__(self, settings: GatewaySettings, *, upstreams: Upstreams, clients: Clients) -> None:
        self._seconds = settings.body_seconds
        self._upstreams = upstreams
        self._clients = clients
        self._binding = _bind()

    async def take(self, request: Request) -> Response:
        """Answers 200 once the sessions are ended, and 400 to what is no good token. Raises the service's error."""
        try:
            message: Any = self._binding.request_class()
            message.provider = request.path_params["provider"]
            message.logout_token = await self._read(request)
            metadata = [*metadata_of("", exchange_of(request.scope).request_id), *self._clients.metadata(request)]
            await self._upstreams.ask(self._binding, message, metadata)
        except (Unauthenticated, InvalidArgument, MalformedRequest, UnsupportedMedia) as error:
            refusal = {"error": "invalid_request", "error_description": error.message}
            return Response(orjson.dumps(refusal), 400, _NOT_KEPT, media_type="application/json")
        return Response(b"", 200, _NOT_KEPT)

    async def _read(self, request: Request) -> str:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _FORM:
            raise UnsupportedMedia(f"A logout token comes as a form: {_FORM}.")
        body = await read_body(request, limit=MAX_BODY_BYTES, seconds=self._seconds)
        given = [value for name, value in parse_query(body) if name == "logout_token"]
        if len(given) != 1:
            raise MalformedRequest("The form must have one logout_token.")
        return given[0]


def _bind() -> Binding:
    method = next(each for service in all_services() for each in service.methods if each.full_name == _RPC)
    return bind(method, verb="POST", path=PATH)
