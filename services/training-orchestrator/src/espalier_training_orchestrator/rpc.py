"""The servicers, one for each proto service; they live beside their noun."""

from espalier.training_orchestrator.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
    workload_pb2,
    workload_pb2_grpc,
)
from espalier_common.pagination import Paginator
from espalier_common.rpc.server import ServicerEntry
from espalier_training_orchestrator.assembly import Assembly
from espalier_training_orchestrator.attempts.rpc import RunnerRpc
from espalier_training_orchestrator.datasets.rpc import DatasetsRpc
from espalier_training_orchestrator.runs.rpc import RunsRpc
from espalier_training_orchestrator.runs.streams import Streams
from espalier_training_orchestrator.settings import TrainingOrchestratorSettings
from espalier_training_orchestrator.workloads.rpc import WorkloadsRpc


def servicers(assembly: Assembly, settings: TrainingOrchestratorSettings) -> list[ServicerEntry]:
    """What the server serves."""
    database, paginator = assembly.database, Paginator(settings.service_secret)
    streams = Streams(database, runs=assembly.runs)
    return [
        (
            dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server,
            DatasetsRpc(database, assembly.datasets, paginator),
            dataset_service_pb2.DESCRIPTOR.services_by_name["DatasetService"],
        ),
        (
            run_service_pb2_grpc.add_RunServiceServicer_to_server,
            RunsRpc(database, runs=assembly.runs, streams=streams, paginator=paginator),
            run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
        ),
        (
            telemetry_pb2_grpc.add_RunnerServiceServicer_to_server,
            RunnerRpc(database, assembly.attempts, heartbeat_seconds=settings.heartbeat_seconds),
            telemetry_pb2.DESCRIPTOR.services_by_name["RunnerService"],
        ),
        (
            workload_pb2_grpc.add_WorkloadServiceServicer_to_server,
            WorkloadsRpc(database, assembly.workloads),
            workload_pb2.DESCRIPTOR.services_by_name["WorkloadService"],
        ),
    ]
