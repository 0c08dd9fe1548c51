"""WorkloadService: proto in, use case, proto out. For services of the platform."""

from google.protobuf.empty_pb2 import Empty

from espalier.training_orchestrator.v1 import run_pb2, workload_pb2, workload_pb2_grpc
from espalier_common.db import Database
from espalier_training_orchestrator.wire import enum_name, enum_value
from espalier_training_orchestrator.workloads.models import Workload, WorkloadMoved
from espalier_training_orchestrator.workloads.service import Workloads


class WorkloadsRpc(workload_pb2_grpc.WorkloadServiceServicer):
    """The servicer of WorkloadService."""

    def __init__(self, database: Database, workloads: Workloads) -> None:
        self._database = database
        self._workloads = workloads

    def CreateWorkload(self, request: workload_pb2.CreateWorkloadRequest, context: object) -> workload_pb2.Workload:
        wanted = request.workload
        with self._database.transaction() as session:
            workload = self._workloads.create(
                session,
                name=wanted.name,
                model_uri=wanted.model_uri,
                served_model_name=wanted.served_model_name,
                device=enum_name(run_pb2.Device, "DEVICE", wanted.device).lower() or "cpu",
                owner_id=wanted.owner_id,
            )
            return workload_to_proto(workload)

    def GetWorkload(self, request: workload_pb2.GetWorkloadRequest, context: object) -> workload_pb2.Workload:
        with self._database.reading() as session:
            return workload_to_proto(self._workloads.get(session, request.name))

    def DeleteWorkload(self, request: workload_pb2.DeleteWorkloadRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._workloads.delete(session, request.name)
        return Empty()


def workload_to_proto(workload: Workload | WorkloadMoved) -> workload_pb2.Workload:
    """The message of a workload."""
    return workload_pb2.Workload(
        name=workload.name,
        model_uri=workload.model_uri,
        served_model_name=workload.served_model_name,
        device=enum_value(run_pb2.Device, "DEVICE", workload.device),
        state=enum_value(workload_pb2.WorkloadState, "WORKLOAD_STATE", workload.state),
        reason=workload.reason,
        message=workload.message,
        base_url=workload.base_url,
        owner_id=workload.owner_id,
    )
