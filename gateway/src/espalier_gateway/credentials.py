"""Who asks: the bearer token of a request, from its Authorization header or from the browser's cookie.

The gateway passes the token on and judges nothing about it; each service verifies it itself.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from espalier_common.errors import Unauthenticated
from espalier_common.identity import MAX_TOKEN_LENGTH
from espalier_gateway.errors import CsrfRefused
from espalier_gateway.exchange import SAFE_METHODS

CSRF_HEADER = "x-csrf-token"
MAX_DEVICE_TOKEN_LENGTH = 512


@dataclass(frozen=True)
class CookieNames:
    """Names of the session's cookies. With the prefix __Host- no other host can plant them; only HTTPS carries them."""

    access: str
    refresh: str
    csrf: str
    device: str

    @classmethod
    def of(cls, *, secure: bool) -> "CookieNames":
        """`secure` is False only on loopback, where browsers refuse the prefix over plain http."""
        prefix = "__Host-" if secure else ""
        return cls(*(f"{prefix}espalier_{name}" for name in ("access", "refresh", "csrf", "device")))


class Credentials:
    """Finds the token of a request and guards cookies against requests that other sites caused."""

    def __init__(self, names: CookieNames) -> None:
        self.names = names

    def token_of(self, request: Request) -> str:
        """The access token, empty when there is none. Raises Unauthenticated for a malformed header, CsrfRefused."""
        # Of two, a proxy in front may have read the other one: together they are none (RFC 9110, 5.3).
        if authorizations := request.headers.getlist("authorization"):
            return _bearer(", ".join(authorizations))
        token = request.cookies.get(self.names.access, "")
        if token and request.method not in SAFE_METHODS:
            self.check_csrf(request)
        return token if _is_token(token) else ""

    def refresh_token_of(self, request: Request) -> str:
        """The refresh token of the cookie, empty when there is none. Raises CsrfRefused."""
        token = request.cookies.get(self.names.refresh, "")
        if token:
            self.check_csrf(request)
        return token if _is_token(token) else ""

    def device_token_of(self, request: Request) -> str:
        """What an earlier sign-in left, empty when there was none. It signs nobody in, so it needs no CSRF header."""
        token = request.cookies.get(self.names.device, "")
        return token if _is_token(token) and len(token) <= MAX_DEVICE_TOKEN_LENGTH else ""

    def check_csrf(self, request: Request) -> None:
        """The header must repeat the cookie, which no other site can read. Raises CsrfRefused."""
        sent = request.headers.get(CSRF_HEADER, "")
        kept = request.cookies.get(self.names.csrf, "")
        if not kept or not hmac.compare_digest(sent.encode(), kept.encode()):
            raise CsrfRefused(
                "A request that signs in by cookie must repeat the cookie "
                f"{self.names.csrf!r} in the header X-CSRF-Token."
            )


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not _is_token(token):
        raise Unauthenticated("The header Authorization must be: Bearer <access token or API key>.")
    return token


def _is_token(text: str) -> bool:
    """Harmless in gRPC metadata; whether it is valid, the services say."""
    return 0 < len(text) <= MAX_TOKEN_LENGTH and text.isascii() and text.isprintable() and " " not in text


def metadata_of(token: str, request_id: str) -> list[tuple[str, str]]:
    """What goes along with a call."""
    headers: Mapping[str, str] = {"authorization": f"Bearer {token}"} if token else {}
    return [*headers.items(), ("x-request-id", request_id)]
