"""The parts of the service, put together once; the composition root and the tests use the same."""

import hashlib
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from espalier_common.artifacts import ArtifactStore
from espalier_common.db import Database, announce
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.attempts.service import Attempts
from espalier_training_orchestrator.changes import Limits, Publish
from espalier_training_orchestrator.datasets.checker import DatasetChecker
from espalier_training_orchestrator.datasets.housekeeping import UploadHousekeeping
from espalier_training_orchestrator.datasets.service import Datasets
from espalier_training_orchestrator.launchers import Launcher
from espalier_training_orchestrator.planner import TrainerSettings
from espalier_training_orchestrator.platform_facts import platform_facts
from espalier_training_orchestrator.reconciler import Reconciler
from espalier_training_orchestrator.runs.admission import Admission
from espalier_training_orchestrator.runs.holds import Holds
from espalier_training_orchestrator.runs.launching import Launching
from espalier_training_orchestrator.runs.ledger import CheckpointLedger
from espalier_training_orchestrator.runs.lifecycle import Lifecycle
from espalier_training_orchestrator.runs.service import Runs, StopLimits
from espalier_training_orchestrator.runs.survey import Survey
from espalier_training_orchestrator.settings import TrainingOrchestratorSettings
from espalier_training_orchestrator.storage import Storage
from espalier_training_orchestrator.telemetry.harvest import Harvest
from espalier_training_orchestrator.telemetry.intake import Intake
from espalier_training_orchestrator.workloads.reconciler import WorkloadReconciler
from espalier_training_orchestrator.workloads.service import Workloads


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """What the edge and the background tasks work with."""

    database: Database
    datasets: Datasets
    checker: DatasetChecker
    upload_housekeeping: UploadHousekeeping
    runs: Runs
    attempts: Attempts
    reconciler: Reconciler
    workloads: Workloads
    workload_reconciler: WorkloadReconciler
    holds: Holds
    storage: Storage
    intake: Intake


def assemble(
    settings: TrainingOrchestratorSettings, *, database: Database, launcher: Launcher, publish: Publish, limits: Limits
) -> Assembly:
    """Puts the parts together. Nothing runs yet."""
    artifacts, uploads = ArtifactStore(settings.artifacts_url), UploadStore(settings.artifacts_url)
    trainer = trainer_settings(settings)
    survey = Survey(artifacts=artifacts, platform=platform_facts(settings))
    lifecycle = Lifecycle(publish=publish, wake=announce)
    storage, holds = Storage(database, limits=limits, publish=publish), Holds(database, limits=limits)
    ledger = CheckpointLedger(places=survey.places, lifecycle=lifecycle, storage=storage)
    intake = Intake(announce)
    reconcile_workloads = partial(WorkloadReconciler, pause=settings.reconcile_seconds)
    launching = Launching(
        database,
        launcher=launcher,
        survey=survey,
        trainer=trainer,
        token_secret=settings.service_secret.get_secret_value(),
    )
    harvest = Harvest(database, launcher=launcher, intake=intake, ledger=ledger, log_limit=settings.log_bytes_per_rank)
    return Assembly(
        database=database,
        datasets=Datasets(uploads, storage=storage, wake=announce),
        checker=DatasetChecker(
            database,
            artifacts=artifacts,
            uploads=uploads,
            storage=storage,
            findings_per_file=settings.findings_per_file,
        ),
        upload_housekeeping=UploadHousekeeping(database, uploads=uploads, kept=timedelta(hours=settings.upload_hours)),
        runs=Runs(
            survey=survey,
            lifecycle=lifecycle,
            holds=holds,
            trainer=trainer,
            stop_limits=StopLimits(save=settings.stop_save_seconds, now=settings.stop_now_seconds),
        ),
        attempts=Attempts(lifecycle=lifecycle, ledger=ledger),
        reconciler=Reconciler(
            database,
            launcher=launcher,
            lifecycle=lifecycle,
            admission=Admission(database, survey=survey, lifecycle=lifecycle, launching=launching, ledger=ledger),
            launching=launching,
            harvest=harvest,
            storage=storage,
            silence_seconds=settings.heartbeat_silence_seconds,
            pause=settings.reconcile_seconds,
        ),
        workloads=Workloads(artifacts=artifacts, publish=publish, wake=announce),
        workload_reconciler=reconcile_workloads(
            database, launcher=launcher, places=survey.places, trainer=trainer, publish=publish
        ),
        holds=holds,
        storage=storage,
        intake=intake,
    )


def trainer_settings(settings: TrainingOrchestratorSettings) -> TrainerSettings:
    """What every launch is given besides what its user asked for."""
    return TrainerSettings(
        python=settings.trainer_python or sys.executable,
        orchestrator=settings.runner_address or settings.listen,
        nats_url=settings.runner_nats_url,
        # Tells the launches of one platform from those of another on the same machine or cluster.
        installation=hashlib.sha256(settings.artifacts_url.encode()).hexdigest()[:12],
        # Longer than the reconciler's own deadline: it is the one who judges a save that does not end.
        grace_seconds=settings.stop_save_seconds + 60,
        server_threads=settings.server_threads,
        swanlab_mode=settings.swanlab_mode,
        swanlab_project=settings.swanlab_project,
    )
