"""Who shares a group with a caller: asked at auth where a permission reaches the caller's groups, kept for seconds."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

import grpc

from espalier_common.identity import Principal
from espalier_common.rpc.bare_channel import lazy_channel
from espalier_common.rpc.context import AUTHORIZATION_HEADER
from espalier_common.rpc.status import from_check

KEEP_SECONDS = 5.0
MAX_KNOWN = 4096  # callers

FetchPeers = Callable[[Principal], Iterable[str]]
"""Ids of all users in the caller's groups; may block; raises Unavailable when auth cannot be asked."""


class GroupPeers:
    """Completes callers whose scope is `group`. Thread-safe."""

    def __init__(self, fetch: FetchPeers) -> None:
        self._fetch = fetch
        self._known: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, principal: Principal) -> Principal | None:
        """The caller with its peers, where they need not be asked for; never blocks."""
        if principal.scope != "group":
            return principal
        with self._lock:
            until, peers = self._known.get(principal.subject, (0.0, frozenset[str]()))
        return replace(principal, peers=peers) if time.monotonic() < until else None

    def complete(self, principal: Principal) -> Principal:
        """The caller with its peers. May ask auth, so it may block."""
        if known := self.cached(principal):
            return known
        asked_at = time.monotonic()
        peers = frozenset(self._fetch(principal))
        with self._lock:
            self._known[principal.subject] = (asked_at + KEEP_SECONDS, peers)
            self._known.move_to_end(principal.subject)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return replace(principal, peers=peers)


def fetch_peers(address: str, *, timeout: float = 5.0) -> FetchPeers:
    """A source of peers: GroupService.ListPeers at host:port, with the caller's own token."""
    channel = lazy_channel(address)

    def fetch(principal: Principal) -> list[str]:
        from espalier.auth.v1 import access_pb2, access_pb2_grpc

        metadata = ((AUTHORIZATION_HEADER, f"Bearer {principal.token}"),)
        stub = access_pb2_grpc.GroupServiceStub(channel())
        try:
            reply = stub.ListPeers(access_pb2.ListPeersRequest(), timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise from_check(error) from error
        return list(reply.user_ids)

    return fetch
