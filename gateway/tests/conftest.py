"""A gateway on a free port, served by uvicorn as in production, in front of real gRPC servers with small servicers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from espalier_common.ending import end_tasks
from espalier_gateway import server as gateway_server
from espalier_gateway.application import build_gateway
from espalier_gateway.settings import GatewaySettings

from .fakes import new_fakes, servicers
from .running import RunningGateway, StartGateway


@pytest_asyncio.fixture
async def start_gateway(rpc_server: Any, tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Factory: `await start_gateway(call_seconds=1)`; keyword arguments are settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(console: Path | None = None, **settings: Any) -> RunningGateway:
            fakes = new_fakes()
            rpc = await rpc_server(servicers(fakes))
            names = ("auth", "training-orchestrator", "chat", "model-registry")
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
            beside = asyncio.create_task(gateway.run())
            host, port = listener.getsockname()[:2]
            running = RunningGateway(address=f"{host}:{port}", settings=configured, rpc=rpc, server=server, fakes=fakes)

            async def stop() -> None:
                await running.close()
                # uvicorn's own stop waits in steps of 0.1 s; test_process sees it at work.
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                for each in server.servers:
                    each.close()
                for connection in list(server.server_state.connections):
                    connection.transport.abort()
                await end_tasks([beside])
                await gateway.close()

            stack.push_async_callback(stop)
            return running

        yield start


@pytest_asyncio.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway with ordinary settings."""
    return await start_gateway()
