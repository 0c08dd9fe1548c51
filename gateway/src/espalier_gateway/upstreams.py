"""The services behind the gateway: one channel each, opened at first use and kept."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from espalier_common.errors import EspalierError, ResourceExhausted
from espalier_common.rpc.bare_channel import CHANNEL_OPTIONS
from espalier_common.rpc.status import from_rpc_error
from espalier_gateway.contract import Binding
from espalier_gateway.errors import BodyTooLarge, RpcMissing, ServiceNotConfigured

Metadata = Sequence[tuple[str, str]]

READINESS_SECONDS = 1.0  # a service that does not answer this fast is not ready
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def error_of(error: grpc.RpcError) -> EspalierError:
    """What a service answered, as an error of ours. Its cause says that it was a service: it tells the audit log."""
    answer = _read_error(error)
    answer.__cause__ = error
    return answer


def _read_error(error: grpc.RpcError) -> EspalierError:
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return RpcMissing("The service runs a version that cannot do this yet; update it.")
    answer = from_rpc_error(error)
    if isinstance(answer, ResourceExhausted) and "larger than max" in answer.message:
        # gRPC's own limit on a message; it knows no reason and means no quota.
        return BodyTooLarge("The request is larger than the service accepts.")
    return answer


class Upstreams:
    """Calls by the addresses of ESPALIER_SERVICES. Used on one event loop."""

    def __init__(self, addresses: Mapping[str, str], *, call_seconds: float) -> None:
        self._addresses = addresses
        self._call_seconds = call_seconds
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: dict[str, Any] = {}

    async def ask(self, binding: Binding, request: Message, metadata: Metadata) -> Message:
        """The answer of a unary RPC. Raises the service's error."""
        try:
            answer: Message = await self._callable(binding)(request, metadata=metadata, timeout=self._call_seconds)
        except grpc.RpcError as error:
            raise error_of(error) from error
        return answer

    def stream(self, binding: Binding, request: Message, metadata: Metadata) -> Any:
        """The running call of a streaming RPC: `read()`, `cancel()`."""
        return self._callable(binding)(request, metadata=metadata)

    async def not_ready(self) -> dict[str, str]:
        """Services that cannot answer now, each with why."""
        names = list(self._addresses)
        found = await asyncio.gather(*(self._why_not_ready(name) for name in names))
        return {name: why for name, why in zip(names, found, strict=True) if why}

    async def close(self) -> None:
        """Closes all channels; running calls are cancelled."""
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            address = self._addresses.get(service)
            if address is None:
                raise ServiceNotConfigured(f"ESPALIER_SERVICES of the gateway names no address of {service!r}; add it.")
            self._channels[service] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return self._channels[service]

    def _callable(self, binding: Binding) -> Any:
        path = binding.grpc_path
        if path not in self._calls:
            channel = self._channel(binding.service)
            make = channel.unary_stream if binding.streams else channel.unary_unary
            self._calls[path] = make(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=binding.response_class.FromString,
            )
        return self._calls[path]

    async def _why_not_ready(self, service: str) -> str:
        from grpc_health.v1 import health_pb2

        check = self._channel(service).unary_unary(
            _HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = await check(health_pb2.HealthCheckRequest(), timeout=READINESS_SECONDS)
        except grpc.aio.AioRpcError as error:
            return f"does not answer at {self._addresses[service]} ({error.code().name})"
        return "" if reply.status == health_pb2.HealthCheckResponse.SERVING else "answers that it is not ready yet"
