"""What this machine and the settings allow, looked up once at the start."""

import os
import re
from pathlib import Path

from espalier_training_orchestrator.runs.facts import PlatformFacts
from espalier_training_orchestrator.settings import TrainingOrchestratorSettings

_GPU_DEVICE = re.compile(r"nvidia\d+")


def platform_facts(settings: TrainingOrchestratorSettings) -> PlatformFacts:
    """The limits that a run is planned against."""
    cores = os.cpu_count() or 1
    return PlatformFacts(
        ranks=settings.capacity_ranks or max(2, cores),
        gpus=_count_gpus() if settings.gpus < 0 else settings.gpus,
        cores=cores,
        model_roots=tuple(root.resolve() for root in settings.model_roots),
    )


def _count_gpus(devices: Path = Path("/dev")) -> int:
    # The driver makes one device file a GPU; asking it through a library would cost a second of start-up.
    return sum(1 for device in devices.iterdir() if _GPU_DEVICE.fullmatch(device.name))
