"""The one way to open a channel to another service.

What goes on the wire with each call: the request id of the call being served, and a token: inside a call the caller's
own, else the service's (from `identity`). A unary call without a timeout gets the channel's default; a stream none.
"""

import asyncio
from collections import namedtuple
from collections.abc import Callable
from typing import Any, cast

import grpc
import grpc.aio

from espalier_common.identity import ServiceIdentity, find_principal
from espalier_common.rpc.bare_channel import CHANNEL_OPTIONS, open_bare_channel
from espalier_common.rpc.context import AUTHORIZATION_HEADER, REQUEST_ID_HEADER, current_request_id


def open_channel(address: str, *, identity: ServiceIdentity | None = None, timeout: float = 10.0) -> grpc.aio.Channel:
    """A channel for coroutines to host:port; `timeout` in seconds is the default deadline of unary calls."""
    outgoing = _Outgoing(identity, timeout)
    return grpc.aio.insecure_channel(
        address, options=CHANNEL_OPTIONS, interceptors=[_AioUnary(outgoing), _AioStream(outgoing)]
    )


def open_sync_channel(address: str, *, identity: ServiceIdentity | None = None, timeout: float = 10.0) -> grpc.Channel:
    """The same for plain handlers, threads and command lines."""
    return grpc.intercept_channel(open_bare_channel(address), _Sync(_Outgoing(identity, timeout)))


class _Outgoing:
    """Completes the details of a call that leaves the process."""

    def __init__(self, identity: ServiceIdentity | None, timeout: float) -> None:
        self._identity = identity
        self._timeout = timeout

    def token_without_waiting(self) -> str | None:
        """The token to send; None when it has to be fetched first; empty when there is none to send."""
        if (principal := find_principal()) is not None:
            return principal.token
        return self._identity.cached() if self._identity else ""

    def token(self) -> str:
        found = self.token_without_waiting()
        return self._identity.token() if found is None and self._identity else (found or "")

    def headers(self, given: Any, token: str) -> list[tuple[str, str | bytes]]:
        """Metadata given by the caller of the stub wins over ours."""
        metadata = list(given or ())
        names = {key for key, _ in metadata}
        if token and AUTHORIZATION_HEADER not in names:
            metadata.append((AUTHORIZATION_HEADER, f"Bearer {token}"))
        if (request_id := current_request_id()) and REQUEST_ID_HEADER not in names:
            metadata.append((REQUEST_ID_HEADER, request_id))
        return metadata

    def timeout(self, given: float | None, *, stream: bool) -> float | None:
        return self._timeout if given is None and not stream else given


class _AioDetails:
    """Shared by the two interceptors for coroutines."""

    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def _complete(self, details: grpc.aio.ClientCallDetails, *, stream: bool) -> grpc.aio.ClientCallDetails:
        token = self._outgoing.token_without_waiting()
        if token is None:
            token = await asyncio.to_thread(self._outgoing.token)
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=self._outgoing.timeout(details.timeout, stream=stream),
            metadata=grpc.aio.Metadata(*self._outgoing.headers(details.metadata, token)),
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _AioUnary(_AioDetails, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await self._complete(client_call_details, stream=False), request)


class _AioStream(_AioDetails, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await self._complete(client_call_details, stream=True), request)


_SyncFields = namedtuple(
    "_SyncFields", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")
)


class _SyncDetails(_SyncFields, grpc.ClientCallDetails):
    """gRPC's blocking interceptors want an object of this shape and bring no class for it."""


class _Sync(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request, stream=False)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request, stream=True)

    def _call(self, continuation: Callable[..., Any], details: Any, request: Any, *, stream: bool) -> Any:
        completed = _SyncDetails(
            details.method,
            self._outgoing.timeout(details.timeout, stream=stream),
            self._outgoing.headers(details.metadata, self._outgoing.token()),
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        return continuation(cast(grpc.ClientCallDetails, completed), request)
