"""Every select, one module for each noun."""

from espalier_training_orchestrator.datasets import repository as datasets
from espalier_training_orchestrator.runs import repository as runs
from espalier_training_orchestrator.telemetry import repository as telemetry
from espalier_training_orchestrator.workloads import repository as workloads

__all__ = ["datasets", "runs", "telemetry", "workloads"]
