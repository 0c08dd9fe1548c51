"""/docs and /openapi.json."""

import asyncio
from collections.abc import Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from espalier_gateway.callers import Callers
from espalier_gateway.endpoint import Handler, endpoint
from espalier_gateway.errors import RouteNotFound
from espalier_gateway.security_headers import PAGE_POLICY
from espalier_gateway.settings import GatewaySettings

_FILES = {
    "docs.html": "text/html; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
}


class DocsPages:
    """The document is built at its first request: most processes never need it."""

    def __init__(self, settings: GatewaySettings, *, callers: Callers, build: Callable[[], bytes]) -> None:
        self._settings = settings
        self._callers = callers
        self._build = build
        self._document: bytes | None = None

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            endpoint("/openapi.json", GET=self._guarded(self.document)),
            endpoint("/docs", GET=self._guarded(_file("docs.html"))),
            # Nothing secret is in them, and a page that may be seen must find them.
            endpoint("/docs/docs.css", GET=_file("docs.css")),
            endpoint("/docs/docs.js", GET=_file("docs.js")),
        ]

    async def document(self, _: Request) -> Response:
        """The OpenAPI document."""
        if self._document is None:
            self._document = await asyncio.to_thread(self._build)
        return Response(self._document, media_type="application/json", headers={"Cache-Control": "no-cache"})

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if self._settings.docs == "off":
                raise RouteNotFound(request.url.path)
            if not self._settings.docs_are_public:
                await self._callers.signed_in(request)
            return await handler(request)

        return answer


def _file(name: str) -> Handler:
    async def answer(_: Request) -> Response:
        content = resources.files("espalier_gateway.docs").joinpath(name).read_bytes()
        headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
        return Response(content, media_type=_FILES[name], headers=headers)

    return answer
