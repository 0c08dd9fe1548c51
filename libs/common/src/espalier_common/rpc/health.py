"""`grpc.health.v1` and reflection. A service is SERVING while all its readiness checks hold, and until it drains."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from espalier_common.telemetry import get_logger

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_log = get_logger(__name__)


class Health:
    """The health of the whole process (name "") and of each of its RPC services; "live" is always SERVING."""

    def __init__(self, checks: Mapping[str, Callable[[], bool]]) -> None:
        self._checks = checks
        self._servicer = health_aio.HealthServicer()
        self._names: list[str] = [""]
        self._failing: set[str] = set()

    def add_to(self, server: grpc.aio.Server, services: Sequence[str]) -> None:
        """Registers health and reflection for the RPC services with these full names."""
        from grpc_reflection.v1alpha import reflection

        self._names = ["", *services]
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        names = [*services, "grpc.health.v1.Health", reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)

    async def begin(self) -> None:
        """NOT_SERVING until the first checks held; gRPC's own servicer would begin as SERVING."""
        await self._publish(_NOT_SERVING)

    async def refresh(self) -> bool:
        """Runs the checks and publishes the verdict."""
        failing = {name for name, check in self._checks.items() if not await asyncio.to_thread(_holds, check)}
        if failing != self._failing:
            _log.warning("readiness changed", failing=sorted(failing))
        self._failing = failing
        await self._publish(_NOT_SERVING if failing else _SERVING)
        return not failing

    async def _publish(self, status: "health_pb2.HealthCheckResponse.ServingStatus.ValueType") -> None:
        await self._servicer.set("live", _SERVING)
        for name in self._names:
            await self._servicer.set(name, status)

    async def leave(self) -> None:
        """NOT_SERVING for good: callers go elsewhere while the running calls end."""
        await self._servicer.enter_graceful_shutdown()


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except Exception:
        return False
