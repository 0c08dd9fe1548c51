"""Routes that the gateway answers itself: a handler by HTTP method."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from espalier_gateway.errors import MethodNotAllowed
from espalier_gateway.exchange import exchange_of

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """An ASGI application under one path. HEAD is answered by GET's handler where it has none of its own."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers.setdefault("HEAD", handlers["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises MethodNotAllowed."""
        exchange_of(scope).route = self._path
        request = Request(scope, receive)
        handler = self._handlers.get(request.method)
        if handler is None:
            raise MethodNotAllowed(request.method, self._handlers)
        response = await handler(request)
        await response(scope, receive, send)


def endpoint(path: str, **handlers: Handler) -> Route:
    """A route: `endpoint("/healthz", GET=live)`."""
    return Route(path, Endpoint(path, handlers))
