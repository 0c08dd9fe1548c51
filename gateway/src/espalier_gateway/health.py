"""`/healthz`: the process lives. `/readyz`: every service answers; when not, the answer names which and why."""

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import Response

from espalier_gateway.upstreams import Upstreams


class HealthPages:
    """The two probes."""

    def __init__(self, upstreams: Upstreams, *, draining: asyncio.Event) -> None:
        self._upstreams = upstreams
        self._draining = draining

    async def live(self, _: Request) -> Response:
        """Always 200: a gateway that cannot answer does not answer."""
        return _json({"status": "live"}, 200)

    async def ready(self, _: Request) -> Response:
        """200 when every configured service is ready, else 503."""
        if self._draining.is_set():
            return _json({"status": "not ready", "not_ready": {"gateway": "is stopping"}}, 503)
        found = await self._upstreams.not_ready()
        if found:
            return _json({"status": "not ready", "not_ready": found}, 503)
        return _json({"status": "ready", "not_ready": {}}, 200)


def _json(value: object, status: int) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
