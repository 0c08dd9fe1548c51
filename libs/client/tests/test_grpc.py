from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from espalier.training_orchestrator.v1 import run_service_pb2_grpc
from espalier.training_orchestrator.v1.run_pb2 import Run
from espalier.training_orchestrator.v1.run_service_pb2 import (
    ListRunsRequest,
    ListRunsResponse,
    WatchRunRequest,
    WatchRunResponse,
)
from espalier_client.grpc import connect


class Runs(run_service_pb2_grpc.RunServiceServicer):
    """Answers with the token that it was shown."""

    def ListRuns(self, request: ListRunsRequest, context: Any) -> ListRunsResponse:
        return ListRunsResponse(runs=[Run(name=dict(context.invocation_metadata())["authorization"])])

    def WatchRun(self, request: WatchRunRequest, context: Any) -> Any:
        yield WatchRunResponse(run=Run(name=dict(context.invocation_metadata())["authorization"]))


def test_every_call_of_a_connection_carries_the_token() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    run_service_pb2_grpc.add_RunServiceServicer_to_server(Runs(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with connect(f"127.0.0.1:{port}", "t0ken") as espalier:
            assert espalier.runs.ListRuns(ListRunsRequest()).runs[0].name == "Bearer t0ken"
            assert [answer.run.name for answer in espalier.runs.WatchRun(WatchRunRequest())] == ["Bearer t0ken"]
    finally:
        server.stop(None)
