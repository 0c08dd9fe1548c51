"""`/healthz`: the process lives. `/readyz`: it can do its work; when not, the answer names what is missing.

Every service answers, and believes the gateway whom it serves.
"""

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import Response

from espalier_gateway.clients import Clients
from espalier_gateway.upstreams import Upstreams


class HealthPages:
    """The two probes."""

    def __init__(self, upstreams: Upstreams, *, clients: Clients, draining: asyncio.Event) -> None:
        self._upstreams = upstreams
        self._clients = clients
        self._draining = draining

    async def live(self, _: Request) -> Response:
        """Always 200: a gateway that cannot answer does not answer."""
        return _json({"status": "live"}, 200)

    async def ready(self, _: Request) -> Response:
        """200 when every configured service and the gateway itself are ready, else 503."""
        if self._draining.is_set():
            return _json({"status": "not ready", "not_ready": {"gateway": "is stopping"}}, 503)
        found = await self._upstreams.not_ready()
        if not self._clients.is_believed():
            found["gateway"] = "has no token of its own yet"
        if found:
            return _json({"status": "not ready", "not_ready": found}, 503)
        return _json({"status": "ready", "not_ready": {}}, 200)


def _json(value: object, status: int) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
