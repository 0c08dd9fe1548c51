"""The model registry, as chat uses it: with the caller's own token."""

from typing import Any

import grpc
import grpc.aio

from espalier.model_registry.v1 import service_pb2, service_pb2_grpc
from espalier_chat.errors import ModelNotFound, ModelNotReady
from espalier_chat.service import Endpoint
from espalier_common.errors import FailedPrecondition, InvalidArgument, NotFound
from espalier_common.rpc.channel import open_channel
from espalier_common.rpc.status import from_rpc_error

CALL_SECONDS = 5.0
LOADING = frozenset({"pending", "starting"})
LOADING_SECONDS = 5.0  # a model takes some to load


class RegistryDeployments:
    """`service.Deployments` over DeploymentService. The channel belongs to the event loop: opened at first use."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def resolve(self, deployment_id: str) -> Endpoint:
        return await self._resolve(service_pb2.ResolveEndpointRequest(deployment_id=deployment_id))

    async def resolve_model(self, model: str) -> Endpoint:
        try:
            return await self._resolve(service_pb2.ResolveEndpointRequest(model=model))
        except (NotFound, InvalidArgument) as error:
            text = f"There is no model {model[:200]!r} here; GET /v1/models lists those that answer."
            raise ModelNotFound("model", model[:200], message=text) from error
        except FailedPrecondition as error:
            is_loading = error.metadata.get("state") in LOADING
            raise ModelNotReady(error.message, retry_after=LOADING_SECONDS if is_loading else None) from error

    async def _resolve(self, request: Any) -> Endpoint:
        if self._channel is None:
            self._channel = open_channel(self._address)
        stub = service_pb2_grpc.DeploymentServiceStub(self._channel)
        try:
            reply = await stub.ResolveEndpoint(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return Endpoint(base_url=reply.base_url, model=reply.model, deployment_id=reply.deployment_id)

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close()
