"""A running gateway, as the tests see it."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from espalier_common.testing.rpc import RpcTestServer
from espalier_gateway.settings import GatewaySettings


class RunningGateway:
    """A gateway in the test's own process. `client` has no token; `client_for(permissions=…)` has one."""

    def __init__(
        self, *, address: str, settings: GatewaySettings, rpc: RpcTestServer, server: Any, fakes: dict[str, Any]
    ) -> None:
        self.address = address
        self.settings = settings
        self.server = server
        self.fakes = fakes
        self._rpc = rpc
        self._clients: list[httpx.AsyncClient] = []
        self.client = self._open()

    def _open(self, **headers: str) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            base_url=f"http://{self.address}", headers=headers, timeout=20, verify=False, trust_env=False
        )
        self._clients.append(client)
        return client

    def token(self, permissions: tuple[str, ...] = ("*",), **claims: Any) -> str:
        return self._rpc.token_for(permissions=permissions, **claims)

    def client_for(self, permissions: tuple[str, ...] = ("*",), **claims: Any) -> httpx.AsyncClient:
        return self._open(authorization=f"Bearer {self.token(permissions, **claims)}")

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


StartGateway = Callable[..., Awaitable[RunningGateway]]
