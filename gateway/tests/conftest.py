"""A gateway on a free port, served by uvicorn as in production, in front of real gRPC servers with small servicers."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from espalier_gateway import server as gateway_server
from espalier_gateway.application import build_gateway
from espalier_gateway.settings import GatewaySettings

# Test modules are imported by path, so what they share must be found by name.
sys.path.insert(0, str(Path(__file__).parent))

from gateway_fakes import AuthFake, ChatFake, DatasetsFake, RunsFake, UsersFake, servicers


class RunningGateway:
    """A gateway in the test's own process. `client` has no token; `client_for(permissions=…)` has one."""

    def __init__(
        self, *, address: str, settings: GatewaySettings, rpc: Any, server: Any, fakes: dict[str, Any]
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


Start = Callable[..., Awaitable[RunningGateway]]


@pytest_asyncio.fixture
async def start_gateway(rpc_server: Any, tmp_path: Path) -> AsyncIterator[Start]:
    """Factory: `await start_gateway(call_seconds=1)`; keyword arguments are settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(console: Path | None = None, **settings: Any) -> RunningGateway:
            fakes = {
                "auth": AuthFake(),
                "users": UsersFake(),
                "runs": RunsFake(),
                "datasets": DatasetsFake(),
                "chat": ChatFake(),
            }
            rpc = await rpc_server(servicers(fakes))
            names = ("auth", "training-orchestrator", "chat")
            values = {
                "listen": "127.0.0.1:0",
                "services": {name: rpc.address for name in names},
                "artifacts_url": (tmp_path / "artifacts").as_uri(),
                "heartbeat_seconds": 0.2,
                **settings,
            }
            configured = GatewaySettings(**values)
            listener = gateway_server.bind(configured.listen, "ESPALIER_LISTEN")
            gateway = build_gateway(configured, verifier=rpc.verifier, console=console or tmp_path / "no-console")
            config = gateway_server._config(gateway, configured)
            server = gateway_server._Server(config, gateway=gateway)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            host, port = listener.getsockname()[:2]
            running = RunningGateway(address=f"{host}:{port}", settings=configured, rpc=rpc, server=server, fakes=fakes)

            async def stop() -> None:
                await running.close()
                server.leave()
                server.force_exit = True
                await asyncio.wait_for(serving, 10)
                await gateway.close()

            stack.push_async_callback(stop)
            return running

        yield start


@pytest_asyncio.fixture
async def gateway(start_gateway: Start) -> RunningGateway:
    """A gateway with ordinary settings."""
    return await start_gateway()
