"""The servicer of eval behind the real edge, over real PostgreSQL."""

import pytest

from espalier.eval.v1 import service_pb2, service_pb2_grpc
from espalier_common.db import Database
from espalier_common.pagination import Paginator
from espalier_common.testing.plugin import MigratedDatabase, RpcServerFactory
from espalier_common.testing.rpc import RpcTestServer
from espalier_eval.events import publish
from espalier_eval.rpc import EvalRpc
from espalier_eval.service import Evaluations


@pytest.fixture
def database(emptied_database: MigratedDatabase) -> Database:
    """Empty for the test."""
    return emptied_database("espalier_eval")


@pytest.fixture
async def server(rpc_server: RpcServerFactory, database: Database) -> RpcTestServer:
    """A running server; `server.channel(permissions=…, subject=…, scope=…)` calls it."""
    servicer = EvalRpc(database, evaluations=Evaluations(publish), paginator=Paginator("a secret of the test"))
    descriptor = service_pb2.DESCRIPTOR.services_by_name["EvalService"]
    return await rpc_server(
        [(service_pb2_grpc.add_EvalServiceServicer_to_server, servicer, descriptor)], database=database
    )
