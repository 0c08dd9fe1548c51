"""Calls to the services on behalf of a client of the OpenAI API: an API key or an access token, in the header alone."""

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request

from espalier_common.errors import Unauthenticated
from espalier_common.rpc.permissions import all_services
from espalier_gateway.clients import Clients
from espalier_gateway.contract import Binding, bind
from espalier_gateway.credentials import Credentials, metadata_of
from espalier_gateway.exchange import exchange_of
from espalier_gateway.openai.errors import ROOT
from espalier_gateway.upstreams import Metadata, Upstreams


class Calls:
    """The RPCs by their full names, called as whoever sends the request."""

    def __init__(
        self, rpcs: Iterable[str], *, upstreams: Upstreams, credentials: Credentials, clients: Clients
    ) -> None:
        methods = {method.full_name: method for service in all_services() for method in service.methods}
        self._bindings = {name: bind(methods[name], verb="POST", path=ROOT) for name in rpcs}
        self._upstreams = upstreams
        self._credentials = credentials
        self._clients = clients

    async def ask(self, request: Request, rpc: str, **fields: Any) -> Any:
        """The answer of a unary RPC to a request of these fields. Raises the service's error."""
        binding = self._bindings[rpc]
        return await self._upstreams.ask(binding, _message(binding, fields), self.metadata(request))

    def stream(self, rpc: str, metadata: Metadata, **fields: Any) -> Any:
        """The running call of a streaming RPC."""
        binding = self._bindings[rpc]
        return self._upstreams.stream(binding, _message(binding, fields), metadata)

    def metadata(self, request: Request) -> Metadata:
        """What says who calls. Raises Unauthenticated where the request carries nothing that could."""
        # Cookies sign nobody in here: what is called by programs needs no guard against foreign pages then.
        if "authorization" not in request.headers:
            raise Unauthenticated("Send an API key of yours: Authorization: Bearer esp_….")
        token = self._credentials.token_of(request)
        return [*metadata_of(token, exchange_of(request.scope).request_id), *self._clients.metadata(request)]


def _message(binding: Binding, fields: dict[str, Any]) -> Any:
    message: Any = binding.request_class()
    for name, value in fields.items():
        setattr(message, name, value)
    return message
