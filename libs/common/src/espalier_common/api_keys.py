"""API keys `esp_…` at the services: each is exchanged at auth for a short access token, and kept for seconds.

A key that was revoked, or whose owner was disabled, therefore ends within KEEP_SECONDS everywhere.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from espalier_common.errors import Unauthenticated
from espalier_common.rpc.bare_channel import lazy_channel
from espalier_common.rpc.status import from_check

if TYPE_CHECKING:
    from espalier_common.identity import Principal

KEY_PREFIX = "esp_"
KEEP_SECONDS = 5.0
REFUSED_SECONDS = 2.0  # for which a key that is none is not asked about again
MAX_KEY_LENGTH = 512
MAX_KNOWN = 4096  # keys
MAX_REFUSED = 1024  # keys; whoever sends more of them asks auth more often, and cannot fill the memory

Exchange = Callable[[str], tuple[str, float]]
"""Access token of a key, and the seconds for which it may be kept; may block. Raises Unauthenticated, Unavailable."""


class InvalidApiKey(Unauthenticated):
    """Unknown, expired, revoked, or its owner disabled: told apart nowhere."""

    reason = "INVALID_API_KEY"

    def __init__(self) -> None:
        super().__init__("The API key is not valid: it is unknown, expired or revoked. Make another one.")


class KeyVerdicts:
    """What keys are worth, remembered for seconds by their hash. Thread-safe."""

    def __init__(self, exchange: Exchange, verify: "Callable[[str], Principal]") -> None:
        self._exchange = exchange
        self._verify = verify
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, key: str) -> "Principal | None":
        """The verdict of an earlier `verify`, while it holds; never blocks."""
        digest = _digest(key)
        with self._lock:
            until, principal = self._known.get(digest, (0.0, None))
            return principal if time.monotonic() < until else None

    def verify(self, key: str) -> "Principal":
        """Its owner, with the permissions of the key. May ask auth. Raises InvalidApiKey, Unavailable."""
        digest = _digest(key)
        if len(key) > MAX_KEY_LENGTH or self._was_refused(digest):
            raise InvalidApiKey
        asked_at = time.monotonic()
        try:
            token, keep_seconds = self._exchange(key)
            principal = self._verify(token)
        except Unauthenticated as error:
            self._refuse(digest)
            raise InvalidApiKey from error
        with self._lock:
            # From the moment of the question: the answer may have been on its way while the key was revoked.
            self._known[digest] = (asked_at + min(keep_seconds, KEEP_SECONDS), principal)
            self._known.move_to_end(digest)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return principal

    def _was_refused(self, digest: bytes) -> bool:
        with self._lock:
            return time.monotonic() < self._refused.get(digest, 0.0)

    def _refuse(self, digest: bytes) -> None:
        with self._lock:
            self._known.pop(digest, None)
            self._refused[digest] = time.monotonic() + REFUSED_SECONDS
            self._refused.move_to_end(digest)
            while len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)


def exchange_at(address: str, *, timeout: float = 5.0) -> Exchange:
    """Exchanges keys with ApiKeyService.ExchangeApiKey at host:port."""
    channel = lazy_channel(address)

    def exchange(key: str) -> tuple[str, float]:
        from espalier.auth.v1 import access_pb2, access_pb2_grpc

        request = access_pb2.ExchangeApiKeyRequest(key=key)
        try:
            reply = access_pb2_grpc.ApiKeyServiceStub(channel()).ExchangeApiKey(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_check(error) from error
        return reply.access_token, float(reply.keep_seconds)

    return exchange


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
