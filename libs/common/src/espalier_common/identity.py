"""Who is behind a call: verified access tokens, and the service's own identity when it calls others.

An access token is a JWT signed with Ed25519 by the auth service. Each service verifies it itself from the public keys
(JWKS) and remembers the verdict until the token expires.
"""

import asyncio
import base64
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import grpc
import jwt

from espalier_common.api_keys import KEY_PREFIX, Exchange, KeyVerdicts
from espalier_common.errors import Unauthenticated, Unavailable
from espalier_common.public_keys import Jwks, KeySet
from espalier_common.revocations import Revocations
from espalier_common.rpc.bare_channel import lazy_channel
from espalier_common.rpc.status import from_rpc_error

ISSUER = "espalier"
AUDIENCE = "espalier"
TOKEN_TYPE = "at+jwt"  # noqa: S105
MAX_LIFETIME = 15 * 60  # seconds; a longer-lived token is refused even when well signed
CLOCK_SKEW = 5  # seconds
CACHE_SIZE = 4096  # verdicts
KEYS_PAUSE = 1.0  # seconds between questions for the first keys
MAX_TOKEN_LENGTH = 32_768  # characters; one with all permissions has about 4,000, and gRPC carries 64 KiB of metadata
HEADER_NAMES = {"alg", "typ", "kid"}

# Exactly one spelling of each token: no padding, no white space, three parts.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)

Scope = Literal["own", "group", "all"]
Kind = Literal["user", "service"]


class Revoked(Unauthenticated):
    """A token that was good, and was taken back before its time."""

    reason = "TOKEN_REVOKED"

    def __init__(self) -> None:
        super().__init__("The access token was taken back: the session ended or your rights changed. Refresh it.")


@dataclass(frozen=True)
class Principal:
    """A verified caller. `scope` says whose data it may see: its own, its groups', or all.

    While a call is served, `scope` is that of the permission which the call requires: a permission may reach less far
    than the widest one. `peers` are the users of its groups, known where `scope` is "group".
    """

    subject: str
    name: str
    kind: Kind
    roles: tuple[str, ...]
    permissions: frozenset[str]
    scope: Scope
    token: str = field(repr=False, default="")
    expires_at: float = 0.0
    # Of a person: the session, or the API key, that the token descends from; empty when it does not say.
    session: str = ""
    issued_at: float = 0.0
    # Id of the API key that calls in the name of its owner; empty when he signed in himself.
    api_key: str = ""
    # Permissions that reach less far than the widest scope, and that one once `scope` is a permission's own.
    narrower: tuple[tuple[Scope, frozenset[str]], ...] = ()
    widest: Scope | None = None
    peers: frozenset[str] = frozenset()
    must_enrol: bool = False  # see enrolment.py

    def may(self, permission: str) -> bool:
        """True when granted by name, by `*`, or by a prefix such as `training.*`."""
        return _grants(self.permissions, permission)

    def scope_of(self, permission: str) -> Scope:
        """Whose data the permission reaches, provided that the caller has it."""
        for scope, permissions in self.narrower:
            if _grants(permissions, permission):
                return scope
        return self.widest or self.scope

    def using(self, permission: str) -> "Principal":
        """The caller as far as this permission reaches."""
        scope = self.scope_of(permission)
        return self if scope == self.scope else replace(self, scope=scope, widest=self.widest or self.scope)


def _grants(granted: frozenset[str], permission: str) -> bool:
    if permission in granted or "*" in granted:
        return True
    parts = permission.split(".")
    return any(".".join([*parts[:length], "*"]) in granted for length in range(1, len(parts)))


_principal: ContextVar[Principal | None] = ContextVar("espalier_principal", default=None)


def find_principal() -> Principal | None:
    """The caller of the call being served; None outside a call or when nobody is known."""
    return _principal.get()


def current_principal() -> Principal:
    """The caller of the call being served. Raises Unauthenticated when nobody is known."""
    principal = _principal.get()
    if principal is None:
        raise Unauthenticated("Sign in first: the call carries no valid access token.")
    return principal


def set_principal(principal: Principal | None) -> None:
    """Sets the caller for the rest of the running task; for the server's edge and for tests."""
    _principal.set(principal)


class TokenVerifier:
    """Verifies access tokens. Thread-safe. Verdicts are cached, keys are fetched again when an unknown one appears.

    With `revocations` a token that was taken back is refused, however good it was before. With `exchange` an API key is
    as good as a token.
    """

    def __init__(
        self,
        jwks: Jwks,
        *,
        issuer: str = ISSUER,
        audience: str = AUDIENCE,
        revocations: Revocations | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self.revocations = revocations
        self._keys = KeySet(jwks)
        self._issuer = issuer
        self._audience = audience
        self._verdicts: OrderedDict[str, Principal] = OrderedDict()
        self._lock = threading.Lock()
        self._api_keys = KeyVerdicts(exchange, self._verify_token) if exchange else None

    async def fetch_keys(self) -> None:
        """Asks auth for its keys until it has told them: the first caller may come when auth is away."""
        while True:
            if await asyncio.to_thread(self._keys.are_known):
                return
            await asyncio.sleep(KEYS_PAUSE)

    def cached(self, token: str) -> Principal | None:
        """The verdict of an earlier `verify`, while it holds; never blocks."""
        if token.startswith(KEY_PREFIX):
            owner = self._api_keys.cached(token) if self._api_keys else None
            return None if owner is None or self._is_revoked(owner) else owner
        with self._lock:
            principal = self._verdicts.get(token)
            if principal is None:
                return None
            if principal.expires_at <= time.time():
                del self._verdicts[token]
                return None
            self._verdicts.move_to_end(token)
        return None if self._is_revoked(principal) else principal

    def verify(self, token: str) -> Principal:
        """The principal of a valid access token or API key. May ask auth, so it may block.

        Raises Unauthenticated for any that is not valid, Unavailable when auth cannot be asked.
        """
        if token.startswith(KEY_PREFIX) and self._api_keys:
            return self.cached(token) or self._api_keys.verify(token)
        return self._verify_token(token)

    def _verify_token(self, token: str) -> Principal:
        if principal := self.cached(token):
            return principal
        try:
            principal = _principal_of(self._decode(token), token)
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("The access token has expired; refresh it or sign in again.") from error
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise Unauthenticated("The access token is not valid; sign in again.") from error
        if self._is_revoked(principal):
            raise Revoked
        self._remember(token, principal)
        return principal

    def _is_revoked(self, principal: Principal) -> bool:
        return self.revocations is not None and self.revocations.covers(principal)

    def _decode(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_LENGTH or not _COMPACT.fullmatch(token):
            raise jwt.InvalidTokenError("not the compact form of a token")
        head, payload, _ = token.split(".")
        header = _read_once(head)
        # A header that names a key (jku, x5u, jwk) or an extension (crit, b64) is none of ours, well signed or not.
        if set(header) != HEADER_NAMES or header["alg"] != "EdDSA" or str(header["typ"]).lower() != TOKEN_TYPE:
            raise jwt.InvalidTokenError("the header is not that of an access token")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._keys.get(header["kid"]),
            algorithms=["EdDSA"],
            issuer=self._issuer,
            audience=self._audience,
            leeway=CLOCK_SKEW,
            # Strict: the audience is one text, not a list in which ours stands too.
            options={"require": ["iss", "aud", "sub", "iat", "exp", "jti"], "strict_aud": True},
        )
        _read_once(payload)
        if not 0 < claims["exp"] - claims["iat"] <= MAX_LIFETIME:
            raise jwt.InvalidTokenError("lifetime is longer than allowed")
        return claims

    def _remember(self, token: str, principal: Principal) -> None:
        with self._lock:
            self._verdicts[token] = principal
            while len(self._verdicts) > CACHE_SIZE:
                self._verdicts.popitem(last=False)


def require_fresh(verifier: TokenVerifier, principal: Principal) -> None:
    """Lets nobody change anything while it is unknown whether he was shut out. Raises Unavailable.

    Services go on: their own secrets are changed by a restart, and the work of the platform must not stand still.
    """
    if principal.kind == "user" and verifier.revocations is not None and verifier.revocations.is_stale():
        raise Unavailable("Auth has not answered for a while, so nothing can be changed now; try again.", retry_after=5)


def _read_once(part: str) -> dict[str, Any]:
    """The JSON object of a part of a token. ValueError when a name stands twice: readers disagree which counts."""
    try:
        text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        found = json.loads(text, object_pairs_hook=_named_once)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _principal_of(claims: Mapping[str, Any], token: str) -> Principal:
    kind, scope = claims["kind"], claims["scope"]
    if kind not in {"user", "service"} or scope not in {"own", "group", "all"}:
        raise ValueError("kind or scope is unknown")
    narrower = claims.get("narrower", {})
    if not set(narrower) <= {"own", "group"}:
        raise ValueError("a narrower scope is unknown")
    return Principal(
        subject=str(claims["sub"]),
        name=str(claims["name"]),
        kind=cast(Kind, kind),
        roles=_texts(claims["roles"]),
        permissions=frozenset(_texts(claims["permissions"])),
        scope=cast(Scope, scope),
        token=token,
        expires_at=float(claims["exp"]),
        api_key=str(claims.get("api_key", "")),
        narrower=tuple((cast(Scope, name), frozenset(_texts(narrower[name]))) for name in sorted(narrower)),
        session=str(claims.get("sid", "")),
        issued_at=float(claims["iat"]),
        must_enrol=bool(claims.get("must_enrol")),
    )


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of strings")
    return tuple(value)


class ServiceIdentity:
    """The service's own access token: fetched at auth against its secret, renewed at two thirds of its life."""

    def __init__(self, address: str, *, name: str, secret: str, timeout: float = 5.0) -> None:
        self._name, self._secret, self._timeout = name, secret, timeout
        self._channel = lazy_channel(address)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = self._expires_at = 0.0

    def cached(self) -> str | None:
        """The token while it needs no renewal; never blocks."""
        return self._token if time.monotonic() < self._renew_at else None

    def valid(self) -> str | None:
        """The token while it is accepted, though it may be time to renew it; never blocks."""
        return self._token if time.monotonic() < self._expires_at else None

    def token(self) -> str:
        """A valid token; may call auth, so it may block. Raises Unavailable when auth gives none."""
        with self._lock:
            now = time.monotonic()
            if now >= self._renew_at:
                self._renew(now)
            return self._token

    def _renew(self, now: float) -> None:
        try:
            token, lifetime = self._issue()
        except grpc.RpcError as error:
            if now < self._expires_at:
                self._renew_at = now + 5
                return
            cause = from_rpc_error(error)
            raise Unavailable(f"Auth gave {self._name} no token: {cause.message}", retry_after=1) from error
        self._token = token
        self._renew_at = now + lifetime * 2 / 3
        self._expires_at = now + lifetime - CLOCK_SKEW

    def _issue(self) -> tuple[str, int]:
        from espalier.auth.v1 import service_pb2, service_pb2_grpc

        request = service_pb2.IssueServiceTokenRequest(service=self._name, secret=self._secret)
        reply = service_pb2_grpc.AuthServiceStub(self._channel()).IssueServiceToken(request, timeout=self._timeout)
        return reply.access_token, reply.expires_in
