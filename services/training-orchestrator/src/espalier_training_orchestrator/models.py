"""All entities of the service, so that whoever wants the whole schema imports one module."""

from espalier_training_orchestrator.datasets.models import Dataset, DatasetFile, DatasetFinding, DatasetVersion
from espalier_training_orchestrator.entity import Base
from espalier_training_orchestrator.runs.models import Attempt, Checkpoint, Run, RunEvent, RunState
from espalier_training_orchestrator.telemetry.models import LogChunk, MetricPoint
from espalier_training_orchestrator.workloads.models import Workload, WorkloadState

__all__ = [
    "Attempt",
    "Base",
    "Checkpoint",
    "Dataset",
    "DatasetFile",
    "DatasetFinding",
    "DatasetVersion",
    "LogChunk",
    "MetricPoint",
    "Run",
    "RunEvent",
    "RunState",
    "Workload",
    "WorkloadState",
]
