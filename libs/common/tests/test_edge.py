"""The edge of a real server: identity, permission, validation, errors."""

import asyncio
from typing import Any

import pytest

from espalier.auth.v1 import service_pb2, service_pb2_grpc
from espalier_common import errors
from espalier_common.identity import current_principal, find_principal
from espalier_common.rpc.context import current_request_id

DESCRIPTOR = service_pb2.DESCRIPTOR.services_by_name["AuthService"]


class Echo(service_pb2_grpc.AuthServiceServicer):
    """Answers from the edge of the auth service."""

    def Login(self, request: Any, context: Any) -> Any:
        if request.username == "boom":
            raise RuntimeError("the secret cause")
        if request.username == "missing":
            raise errors.NotFound("user", "missing")
        who = find_principal()
        return service_pb2.TokenPair(access_token=who.subject if who else "", refresh_token=current_request_id())

    async def Refresh(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(30)

    def Logout(self, request: Any, context: Any) -> Any:
        raise errors.ResourceExhausted("Slow down.", retry_after=1.5)

    def GetJwks(self, request: Any, context: Any) -> Any:
        return service_pb2.Jwks()

    def IssueServiceToken(self, request: Any, context: Any) -> Any:
        return service_pb2.ServiceToken(access_token=current_principal().subject)


@pytest.fixture
async def server(rpc_server: Any) -> Any:
    return await rpc_server([(service_pb2_grpc.add_AuthServiceServicer_to_server, Echo(), DESCRIPTOR)])


async def test_a_plain_handler_knows_the_caller_and_the_request_id(server: Any) -> None:
    stub = service_pb2_grpc.AuthServiceStub(server.channel(permissions=["*"], subject="u1"))
    reply = await stub.Login(service_pb2.LoginRequest(username="a", password="b"), metadata=[("x-request-id", "r-1")])
    assert (reply.access_token, reply.refresh_token) == ("u1", "r-1")
