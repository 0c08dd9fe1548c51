"""The training orchestrator, as the registry uses it: runs with the user's rights, model servers with its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from espalier.training_orchestrator.v1 import run_service_pb2, run_service_pb2_grpc, workload_pb2, workload_pb2_grpc
from espalier_common.errors import NotFound, Unavailable
from espalier_common.rpc.status import from_rpc_error
from espalier_model_registry.models import TrainedModel
from espalier_model_registry.servers import Server, ServerState
from espalier_model_registry.wire import DEVICES

CALL_SECONDS = 5.0

_STATES = {
    workload_pb2.WORKLOAD_STATE_STARTING: ServerState.STARTING,
    workload_pb2.WORKLOAD_STATE_READY: ServerState.READY,
    workload_pb2.WORKLOAD_STATE_FAILED: ServerState.FAILED,
}


@contextmanager
def _errors_of_the_peer() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


class OrchestratorRuns:
    """`service.Runs` over RunService. The channel sends the caller's token along."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = run_service_pb2_grpc.RunServiceStub(channel)

    def trained_model(self, run_id: str) -> TrainedModel:
        with _errors_of_the_peer():
            reply = self._stub.GetRunModel(run_service_pb2.GetRunModelRequest(run_id=run_id), timeout=CALL_SECONDS)
        return TrainedModel(
            run_id=run_id,
            uri=reply.uri,
            manifest_sha256=reply.manifest_sha256,
            step=reply.step,
            parameters=reply.parameters,
            dataset_version_ids=tuple(reply.dataset_version_ids),
            base_run_id=reply.base_run_id or None,
            template=reply.template,
        )


class OrchestratorWorkloads:
    """`servers.Workloads` over WorkloadService. Used outside calls, so the channel sends the registry's own token."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = workload_pb2_grpc.WorkloadServiceStub(channel)

    def launch(self, *, name: str, model_uri: str, served_name: str, device: str, owner_id: str) -> Server:
        workload = workload_pb2.Workload(
            name=name,
            model_uri=model_uri,
            served_model_name=served_name,
            device=DEVICES[device],
            owner_id=owner_id,
        )
        with _errors_of_the_peer():
            request = workload_pb2.CreateWorkloadRequest(workload=workload)
            return _server(self._stub.CreateWorkload(request, timeout=CALL_SECONDS))

    def find(self, name: str) -> Server | None:
        try:
            with _errors_of_the_peer():
                return _server(self._stub.GetWorkload(workload_pb2.GetWorkloadRequest(name=name), timeout=CALL_SECONDS))
        except NotFound:
            return None

    def remove(self, name: str) -> None:
        try:
            with _errors_of_the_peer():
                self._stub.DeleteWorkload(workload_pb2.DeleteWorkloadRequest(name=name), timeout=CALL_SECONDS)
        except NotFound:
            return


def _server(workload: workload_pb2.Workload) -> Server:
    state = _STATES.get(workload.state)
    if state is None:
        raise Unavailable(f"The training orchestrator does not say where {workload.name} stands.")
    return Server(
        state=state,
        reason=workload.reason,
        message=workload.message,
        base_url=workload.base_url,
        has_owner=bool(workload.owner_id),
    )
