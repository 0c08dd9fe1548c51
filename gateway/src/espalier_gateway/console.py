"""The console's built files: hashed assets kept for a year, every other page address answered with index.html.

The build leaves a compressed form beside each file that gains by it; whoever takes it gets it.
"""

import mimetypes
from importlib import resources
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from espalier_gateway.encodings import CODINGS, choose
from espalier_gateway.errors import MethodNotAllowed, RouteNotFound
from espalier_gateway.exchange import exchange_of, raw_path_of
from espalier_gateway.path_template import decode_segment
from espalier_gateway.security_headers import PAGE_POLICY

HOW_TO_BUILD = (
    "The console is not built yet: run `npm ci && npm run build` in gateway/web, then load this page again.\n"
)
HASHED = "assets/"  # Vite puts a hash of the content into the name of all it writes there
FOREVER = "public, max-age=31536000, immutable"
ASK_EACH_TIME = "no-cache"
# What the gateway itself answers is never a page of the console.
NOT_PAGES = ("api/", "v1/", ".well-known/")


def find_console() -> Path:
    """Directory of the built files: in a wheel `espalier_gateway/static`, in a source tree `gateway/web/dist`."""
    package = Path(str(resources.files("espalier_gateway")))
    installed = package / "static"
    return installed if installed.is_dir() else package.parents[1] / "web" / "dist"


class Console:
    """The ASGI application of everything that no other route answers. The files may appear while it runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RouteNotFound and MethodNotAllowed."""
        if scope["method"] not in {"GET", "HEAD"}:
            self._refuse(scope)
        response = self._respond(raw_path_of(scope), Headers(scope=scope))
        exchange_of(scope).route = "console"
        await response(scope, receive, send)

    def _refuse(self, scope: Scope) -> None:
        raw_path = raw_path_of(scope)
        if raw_path == "/" or self._file(raw_path.lstrip("/")):
            raise MethodNotAllowed(scope["method"], {"GET", "HEAD"})
        raise RouteNotFound(raw_path)

    def _respond(self, raw_path: str, headers: Headers) -> Response:
        name = raw_path.lstrip("/")
        file = self._file(name)
        if file is None and not self._is_page(name):
            raise RouteNotFound(raw_path)
        index = self._directory / "index.html"
        if file is None and not index.is_file():
            if name:
                raise RouteNotFound(raw_path)
            return PlainTextResponse(HOW_TO_BUILD)
        return _file_response(file or index, hashed=file is not None and name.startswith(HASHED), headers=headers)

    def _file(self, name: str) -> Path | None:
        """The file of this name below the directory; None when there is none, and for names that would leave it."""
        decoded = decode_segment(name)
        if not decoded or "\0" in decoded or len(decoded) > 1024 or decoded.endswith(tuple(CODINGS.values())):
            return None
        path = (self._directory / decoded).resolve()
        return path if path.is_relative_to(self._directory) and path.is_file() else None

    def _is_page(self, name: str) -> bool:
        """Addresses of the console's own router have no dot in their last part; a missing file does."""
        return not name.startswith(NOT_PAGES) and "." not in name.rpartition("/")[2]


def _file_response(path: Path, *, hashed: bool, headers: Headers) -> Response:
    chosen, coding = choose(path, headers.get("accept-encoding", ""))
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    response = FileResponse(chosen, media_type=media_type, stat_result=chosen.stat())
    response.headers["cache-control"] = FOREVER if hashed else ASK_EACH_TIME
    response.headers["content-security-policy"] = PAGE_POLICY
    # What is kept on the way is kept for those alone who take the same coding, and each has its own mark.
    response.headers["vary"] = "accept-encoding"
    if coding:
        response.headers["content-encoding"] = coding
        response.headers["etag"] = response.headers["etag"].removesuffix('"') + f'-{coding}"'
    if _is_kept(headers.get("if-none-match", ""), response.headers["etag"]):
        # The policy again: the headers of this answer replace those that the browser has kept with the file.
        kept = ("etag", "cache-control", "content-security-policy", "vary")
        unchanged = {name: response.headers[name] for name in kept}
        return Response(status_code=304, headers=unchanged)
    return response


def _is_kept(if_none_match: str, etag: str) -> bool:
    """Whether one of the marks that a client has is this one; proxies that compress make them weak."""
    marks = [mark.strip().removeprefix("W/") for mark in if_none_match.split(",")]
    return etag in marks or marks == ["*"]
