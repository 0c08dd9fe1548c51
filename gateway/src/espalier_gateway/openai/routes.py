"""The routes below /v1. Whatever else is asked there is told in the same words that it is not there."""

import asyncio

from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from espalier_gateway.call_relay import CallRelay
from espalier_gateway.clients import Clients
from espalier_gateway.credentials import Credentials
from espalier_gateway.endpoint import endpoint
from espalier_gateway.errors import RouteNotFound
from espalier_gateway.exchange import raw_path_of
from espalier_gateway.openai import completions, models
from espalier_gateway.openai.calls import Calls
from espalier_gateway.openai.completions import ChatCompletions
from espalier_gateway.openai.errors import ROOT
from espalier_gateway.openai.models import Models
from espalier_gateway.settings import GatewaySettings
from espalier_gateway.upstreams import Upstreams

LISTED = "GET /v1/models, GET /v1/models/{model} and POST /v1/chat/completions"


def openai_routes(
    settings: GatewaySettings,
    *,
    upstreams: Upstreams,
    credentials: Credentials,
    clients: Clients,
    draining: asyncio.Event,
) -> list[BaseRoute]:
    """For the application's router."""
    rpcs = (models.LIST, models.GET, completions.RPC)
    calls = Calls(rpcs, upstreams=upstreams, credentials=credentials, clients=clients)
    listed = Models(calls)
    relay = CallRelay(settings, draining=draining)
    return [
        endpoint(f"{ROOT}/models", GET=listed.all),
        endpoint(f"{ROOT}/models/{{model:path}}", GET=listed.one),
        Route(completions.PATH, ChatCompletions(settings, calls=calls, relay=relay)),
        Route(f"{ROOT}/{{rest:path}}", _Nothing()),
        Route(ROOT, _Nothing()),
    ]


class _Nothing:
    """The ASGI application of every other path."""

    async def __call__(self, scope: Scope, *_: object) -> None:
        """Raises RouteNotFound."""
        raise RouteNotFound(raw_path_of(scope), here=LISTED)
