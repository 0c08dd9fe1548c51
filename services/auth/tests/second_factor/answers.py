"""What auth answers, as tests look at it."""

from collections.abc import Awaitable
from typing import Any

import grpc.aio
import pytest

from espalier.auth.v1 import resources_pb2, service_pb2
from espalier_common.rpc.status import from_rpc_error


async def refusal(call: Awaitable[Any]) -> tuple[str, str]:
    """Code and reason of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    error = from_rpc_error(refused.value)
    return error.code, error.reason


async def refresh(auth: Any, token: str) -> resources_pb2.TokenPair:
    pair: resources_pb2.TokenPair = await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=token))
    return pair
