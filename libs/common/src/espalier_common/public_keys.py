"""The public keys of auth, with which each process verifies access tokens."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import jwt

from espalier_common.errors import Unavailable
from espalier_common.rpc.bare_channel import lazy_channel
from espalier_common.telemetry import get_logger

Jwks = Callable[[], Sequence[Mapping[str, str]]]
"""Gives the public keys as JWK mappings (kty, crv, kid, x, alg, use); may block; raises when it cannot."""

_log = get_logger(__name__)


class KeySet:
    """Public keys by id. An unknown id causes one fetch per 30 s at most; keys are fetched again after 5 minutes."""

    UNKNOWN_KEY_PAUSE = 30.0
    FAILURE_PAUSE = 0.5
    MAX_AGE = 300.0

    def __init__(self, jwks: Jwks) -> None:
        self._jwks = jwks
        self._keys: dict[str, jwt.PyJWK] = {}
        self._next_fetch, self._fetched_at = 0.0, float("-inf")
        self._lock = threading.Lock()

    def get(self, kid: str) -> jwt.PyJWK:
        """The key; raises InvalidTokenError when there is none, Unavailable when keys were never fetched."""
        with self._lock:
            now = time.monotonic()
            stale = now - self._fetched_at > self.MAX_AGE
            if (kid not in self._keys or stale) and now >= self._next_fetch:
                self._fetch(now)
            if kid in self._keys:
                return self._keys[kid]
            if self._fetched_at == float("-inf"):
                raise Unavailable("Sign-in cannot be checked at the moment; try again.", retry_after=1)
        raise jwt.InvalidTokenError("signed with an unknown key")

    def are_known(self) -> bool:
        """Whether auth told its keys; asks it when it has not."""
        with self._lock:
            if self._fetched_at == float("-inf") and (now := time.monotonic()) >= self._next_fetch:
                self._fetch(now)
            return self._fetched_at != float("-inf")

    def _fetch(self, now: float) -> None:
        try:
            self._keys = {key["kid"]: jwt.PyJWK(dict(key), algorithm="EdDSA") for key in self._jwks()}
            self._fetched_at = now
            self._next_fetch = now + self.UNKNOWN_KEY_PAUSE
        except Exception as error:
            # Known keys stay good while auth is away; the next token tries again.
            # From now: whoever waited for the lock meanwhile must not wait for auth as well.
            self._next_fetch = time.monotonic() + self.FAILURE_PAUSE
            _log.warning("cannot fetch the public keys of auth", error=type(error).__name__)


def fetch_jwks(address: str, *, timeout: float = 3.0) -> Jwks:
    """A source of keys: AuthService.GetJwks at host:port.

    The first keys are waited for, since nobody can be told from another without them: a platform that starts would
    else refuse its first callers.
    """
    channel = lazy_channel(address)
    answered = threading.Event()

    def fetch() -> list[dict[str, str]]:
        from espalier.auth.v1 import service_pb2, service_pb2_grpc

        reply = service_pb2_grpc.AuthServiceStub(channel()).GetJwks(
            service_pb2.GetJwksRequest(), timeout=timeout, wait_for_ready=not answered.is_set()
        )
        answered.set()
        return [{name: getattr(key, name) for name in ("kty", "crv", "kid", "x", "alg", "use")} for key in reply.keys]

    return fetch
