"""Verified callers, for the routes that the gateway answers itself."""

import asyncio

from starlette.requests import Request

from espalier_common.enrolment import require_enrolled
from espalier_common.errors import PermissionDenied, Unauthenticated
from espalier_common.identity import Principal, TokenVerifier, require_fresh
from espalier_gateway.credentials import Credentials
from espalier_gateway.exchange import SAFE_METHODS, exchange_of


class Callers:
    """Tells who sends a request, by verifying the token here."""

    def __init__(self, credentials: Credentials, verifier: TokenVerifier) -> None:
        self._credentials = credentials
        self._verifier = verifier

    async def signed_in(self, request: Request) -> Principal:
        """The caller. Raises Unauthenticated, CsrfRefused, SecondFactorEnrolmentRequired, and Unavailable while auth's
        keys cannot be fetched.
        """
        token = self._credentials.token_of(request)
        if not token:
            raise Unauthenticated("Sign in first: the request carries no access token.")
        principal = self._verifier.cached(token)
        if principal is None:
            principal = await asyncio.to_thread(self._verifier.verify, token)
        exchange_of(request.scope).caller = principal
        require_enrolled(principal)
        if request.method not in SAFE_METHODS:
            require_fresh(self._verifier, principal)
        return principal

    async def permitted(self, request: Request, permission: str) -> Principal:
        """The caller, who has the permission. Raises PermissionDenied too."""
        principal = await self.signed_in(request)
        if not principal.may(permission):
            raise PermissionDenied(permission)
        return principal
