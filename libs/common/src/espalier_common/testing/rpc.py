"""A service's servicers on a free port, in the test's own process, behind the real edge and with a key of its own."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from espalier_common.identity import AUDIENCE, ISSUER, TOKEN_TYPE, Kind, Scope, TokenVerifier
from espalier_common.rpc.bare_channel import CHANNEL_OPTIONS
from espalier_common.rpc.server import RunningService, Service, ServicerEntry, start
from espalier_common.settings import ServiceSettings

KEY_ID = "test"


class SigningKey:
    """An Ed25519 key that signs access tokens as the auth service does."""

    def __init__(self, kid: str = KEY_ID) -> None:
        self.kid = kid
        self._private = Ed25519PrivateKey.generate()

    def jwks(self) -> list[dict[str, str]]:
        """The public half."""
        from jwt.algorithms import OKPAlgorithm

        key: dict[str, Any] = OKPAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return [{**key, "kid": self.kid, "alg": "EdDSA", "use": "sig"}]

    def sign(self, claims: dict[str, Any], *, typ: str = TOKEN_TYPE) -> str:
        """A token with exactly these claims."""
        return jwt.encode(claims, self._private, algorithm="EdDSA", headers={"kid": self.kid, "typ": typ})

    def sign_bytes(self, header: bytes, payload: bytes) -> str:
        """A well signed token of exactly these bytes, which need not be JSON."""
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
        signature = base64.urlsafe_b64encode(self._private.sign(signed)).rstrip(b"=")
        return b".".join((signed, signature)).decode()

    def token(
        self,
        *,
        permissions: Sequence[str] = (),
        subject: str = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002",
        scope: Scope = "all",
        kind: Kind = "user",
        roles: Sequence[str] = (),
        name: str = "tester",
        lifetime: int = 600,
    ) -> str:
        """A valid access token; `lifetime` in seconds."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "name": name,
            "kind": kind,
            "roles": list(roles),
            "permissions": list(permissions),
            "scope": scope,
            "jti": f"{now}-{time.monotonic_ns()}",
            "iat": now,
            "exp": now + lifetime,
        }
        return self.sign(claims)


@dataclass
class RpcTestServer:
    """A running server. `channel(permissions=…)` signs in, `channel()` does not."""

    running: RunningService
    key: SigningKey
    verifier: TokenVerifier
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.running.port}"

    def token_for(self, *, permissions: Sequence[str], **claims: Any) -> str:
        """An access token, as `SigningKey.token`."""
        return self.key.token(permissions=permissions, **claims)

    def channel(self, permissions: Sequence[str] | None = None, **claims: Any) -> grpc.aio.Channel:
        """A channel whose calls carry a token with these permissions and claims; without permissions no token."""
        interceptors: list[Any] = []
        if permissions is not None:
            token = self.token_for(permissions=permissions, **claims)
            interceptors = [_UnaryToken(token), _StreamToken(token)]
        channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS, interceptors=interceptors)
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        """Closes its channels and stops the server at once."""
        for channel in self._channels:
            await channel.close()
        await self.running.stop(grace=0)


async def start_rpc_server(servicers: Sequence[ServicerEntry], **service: Any) -> RpcTestServer:
    """Starts servicers behind the real edge; further keyword arguments go to `Service` (background, bus, …)."""
    key = SigningKey()
    verifier = TokenVerifier(key.jwks)
    settings = service.pop("settings", None) or ServiceSettings(listen="127.0.0.1:0")
    described = Service(
        name=service.pop("name", "test"),
        package=service.pop("package", "espalier_test"),
        settings=settings,
        servicers=servicers,
        verifier=verifier,
        **service,
    )
    return RpcTestServer(await start(described), key, verifier)


def refusal_bytes(error: grpc.aio.AioRpcError) -> bytes:
    """All that a refused caller is told, but for the id of the request."""
    metadata: dict[str, Any] = dict(error.trailing_metadata())
    request_id = str(metadata["x-request-id"]).encode()
    return (error.details() or "").encode() + bytes(metadata["grpc-status-details-bin"]).replace(request_id, b"")


class _Token:
    def __init__(self, token: str) -> None:
        self._token = token

    def _signed(self, details: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {self._token}"))
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=details.timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _UnaryToken(_Token, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)


class _StreamToken(_Token, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)
