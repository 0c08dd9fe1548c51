"""The model registry, as chat uses it: with the caller's own token."""

import grpc
import grpc.aio

from espalier.model_registry.v1 import service_pb2, service_pb2_grpc
from espalier_chat.service import Endpoint
from espalier_common.rpc.channel import open_channel
from espalier_common.rpc.status import from_rpc_error

CALL_SECONDS = 5.0


class RegistryDeployments:
    """`service.Deployments` over DeploymentService. The channel belongs to the event loop: opened at first use."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def resolve(self, deployment_id: str) -> Endpoint:
        if self._channel is None:
            self._channel = open_channel(self._address)
        stub = service_pb2_grpc.DeploymentServiceStub(self._channel)
        request = service_pb2.ResolveEndpointRequest(deployment_id=deployment_id)
        try:
            reply = await stub.ResolveEndpoint(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return Endpoint(base_url=reply.base_url, model=reply.model)

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close()
