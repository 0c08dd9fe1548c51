"""The use cases, named by what a user would say; they live beside their noun."""

from espalier_training_orchestrator.attempts.service import Attempts, Claim, Command
from espalier_training_orchestrator.datasets.service import Datasets, NewFile
from espalier_training_orchestrator.runs.service import FinishedModel, Plan, Runs, StopLimits
from espalier_training_orchestrator.workloads.service import Workloads

__all__ = [
    "Attempts",
    "Claim",
    "Command",
    "Datasets",
    "FinishedModel",
    "NewFile",
    "Plan",
    "Runs",
    "StopLimits",
    "Workloads",
]
