"""Sign-in of browsers: the tokens of auth travel in cookies, never in a body that a script could read.

These RPCs are transcoded like all others; only their tokens take another way:

    Login, FinishOidcLogin    with "cookie": true   → answer's tokens into cookies, the session of before signed out
    Refresh                   without a token       → token from the cookie, answer's tokens into cookies
    Logout                    without a token       → token from the cookie, cookies removed
"""

import secrets
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

from starlette.requests import Request

from espalier_common.errors import Unauthenticated
from espalier_gateway.credentials import Credentials
from espalier_gateway.errors import CsrfRefused
from espalier_gateway.settings import GatewaySettings

DEVICE_SECONDS = 365 * 86_400  # it outlives the session: who signs in again is known by it
# Begins the value against CSRF of a session that the browser forgets when it is closed: a renewal has to know it, and a
# browser sends back of a cookie only its value.
UNTIL_CLOSED = "until-closed."

_LOGIN = "espalier.auth.v1.AuthService.Login"
_SIGN_INS = frozenset({_LOGIN, "espalier.auth.v1.OidcService.FinishOidcLogin"})
_REFRESH = "espalier.auth.v1.AuthService.Refresh"
_LOGOUT = "espalier.auth.v1.AuthService.Logout"


class SessionCookies:
    """Reads and writes the cookies of a browser's session."""

    def __init__(self, settings: GatewaySettings, credentials: Credentials) -> None:
        self._secure = settings.secure_cookies
        self._refresh_seconds = settings.refresh_cookie_seconds
        self._credentials = credentials

    def take(self, rpc: str, message: Any, request: Request) -> bool:
        """Fills the request from the cookies where it is meant to; True when the answer belongs into cookies.

        Raises CsrfRefused, and Unauthenticated when a refresh has no token at all.
        """
        if rpc in _SIGN_INS:
            if rpc == _LOGIN and message.cookie and not message.device_token:
                message.device_token = self._credentials.device_token_of(request)
            return bool(message.cookie)
        if rpc not in {_REFRESH, _LOGOUT} or message.refresh_token:
            return False
        message.refresh_token = self._credentials.refresh_token_of(request)
        if rpc == _REFRESH and not message.refresh_token:
            raise Unauthenticated("There is no session to refresh; sign in.")
        return bool(message.refresh_token)

    def renewed(self, rpc: str, message: Any) -> str:
        """The refresh token that a filled request renews; empty for any other RPC."""
        return str(message.refresh_token) if rpc == _REFRESH else ""

    def left_behind(self, rpc: str, request: Request) -> str:
        """The refresh token of the session that a browser had when it signed in anew.

        Empty when it had none, or when the request does not show that the console sent it.
        """
        try:
            return self._credentials.refresh_token_of(request) if rpc in _SIGN_INS else ""
        except CsrfRefused:
            return ""

    def is_until_closed(self, rpc: str, message: Any, request: Request) -> bool:
        """Whether the browser forgets the session when it is closed: chosen at the sign-in, and kept from then on."""
        if rpc in _SIGN_INS:
            return bool(message.until_closed)
        return request.cookies.get(self._credentials.names.csrf, "").startswith(UNTIL_CLOSED)

    def give(self, rpc: str, reply: Any, *, until_closed: bool) -> list[str]:
        """Set-Cookie values for an answer, whose tokens are removed from it."""
        if rpc == _LOGOUT:
            return self.removal()
        names = self._credentials.names
        proof = secrets.token_urlsafe(24)
        seconds = None if until_closed else self._refresh_seconds
        lives: dict[str, tuple[str, int | None]] = {
            names.access: (reply.access_token, None if until_closed else reply.expires_in),
            names.refresh: (reply.refresh_token, seconds),
            names.csrf: (UNTIL_CLOSED + proof if until_closed else proof, seconds),
        }
        if reply.device_token:
            lives[names.device] = (reply.device_token, DEVICE_SECONDS)
        reply.access_token = reply.refresh_token = reply.device_token = ""
        return [self._cookie(name, value, seconds) for name, (value, seconds) in lives.items()]

    def removal(self) -> list[str]:
        """Set-Cookie values that end the session in the browser."""
        names = self._credentials.names
        return [self._cookie(name, "", 0) for name in (names.access, names.refresh, names.csrf)]

    def _cookie(self, name: str, value: str, seconds: int | None) -> str:
        """Without `seconds` it goes when the browser is closed."""
        cookie: SimpleCookie = SimpleCookie({name: value})
        attributes: Mapping[str, Any] = {
            "path": "/",
            "max-age": None if seconds is None else str(seconds),
            "samesite": "Strict",
            "secure": self._secure,
            # The script of the console must read this one to repeat it in the header.
            "httponly": name != self._credentials.names.csrf,
        }
        cookie[name].update({key: setting for key, setting in attributes.items() if setting})
        return cookie[name].OutputString()
