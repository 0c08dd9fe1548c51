"""Keeps workloads as they are wanted, level-triggered like the reconciler of runs. It never restarts one by itself."""

import time
from collections import Counter

from sqlalchemy.exc import InterfaceError, OperationalError

from espalier_common.db import Database
from espalier_common.errors import EspalierError
from espalier_common.rounds import IDLE_SECONDS, go_round
from espalier_common.telemetry import get_logger
from espalier_training_orchestrator import planner
from espalier_training_orchestrator.changes import Publish
from espalier_training_orchestrator.launchers import Launcher
from espalier_training_orchestrator.locks import single_flight
from espalier_training_orchestrator.runs.survey import Places
from espalier_training_orchestrator.spec import Observation, Phase
from espalier_training_orchestrator.workloads import repository
from espalier_training_orchestrator.workloads.accounts import WorkloadAccounts
from espalier_training_orchestrator.workloads.models import Workload, WorkloadState
from espalier_training_orchestrator.workloads.service import RECONCILER

WATCH_SECONDS = 2.0  # between two looks at servers that serve
SICK_ROUNDS = 10  # a server that fails its health check so often in a row is not ready any more

_log = get_logger(__name__)


class WorkloadReconciler:
    """One for all workloads; two replicas take turns."""

    def __init__(
        self,
        database: Database,
        *,
        launcher: Launcher,
        places: Places,
        trainer: planner.TrainerSettings,
        publish: Publish,
        pause: float,
    ) -> None:
        self._database = database
        self._launcher = launcher
        self._places = places
        self._trainer = trainer
        self._publish = publish
        self._pause = pause
        self._accounts = WorkloadAccounts(database, publish=publish)
        self._sick: Counter[str] = Counter()
        self._asked_at: dict[str, float] = {}

    async def run(self) -> None:
        """Rounds for ever."""
        await go_round(self.tick, database=self._database, topic=RECONCILER)

    def tick(self) -> float:
        """One round over everything; gives the seconds until the next."""
        with single_flight(self._database.engine, "workload-reconciler") as mine:
            if not mine:
                return IDLE_SECONDS
            with self._database.transaction() as session:
                workloads = list(repository.list_workloads(session))
            for workload in workloads:
                try:
                    self._reconcile(workload)
                except (OperationalError, InterfaceError):
                    raise
                except Exception:  # whatever it is, it is about this one
                    _log.exception("workload could not be reconciled, trying again", workload=workload.name)
        if any(not workload.wanted or workload.state is WorkloadState.STARTING for workload in workloads):
            return self._pause
        return WATCH_SECONDS if workloads else IDLE_SECONDS

    def _reconcile(self, workload: Workload) -> None:
        seen = self._launcher.observe(workload.launch_name, workload.directory)
        self._accounts.take(workload, seen)
        if not workload.wanted:
            self._end(workload, seen)
        elif workload.state is WorkloadState.FAILED:
            return
        elif seen is None:
            self._launch(workload)
        elif seen.phase.is_terminal:
            reason, message = seen.reason or "PROCESS_DIED", seen.message or "The server has ended."
            self._move(workload, WorkloadState.FAILED, reason=reason, message=message)
        elif seen.phase is Phase.READY:
            self._sick.pop(workload.id, None)
            self._move(
                workload, WorkloadState.READY, reason="READY", message="Serving.", base_url=f"{seen.base_url}/v1"
            )
        elif workload.state is WorkloadState.READY:
            self._doubt(workload)

    def _launch(self, workload: Workload) -> None:
        model = str(self._places.artifacts.local_path(workload.model_uri))
        spec = planner.plan_server(
            name=workload.launch_name,
            directory=workload.directory,
            model=model,
            served_model_name=workload.served_model_name,
            device=workload.device,
            trainer=self._trainer,
        )
        try:
            self._launcher.submit(spec)
        except EspalierError as error:
            self._move(workload, WorkloadState.FAILED, reason=error.reason, message=error.message)

    def _doubt(self, workload: Workload) -> None:
        """One slow health check is no reason to send nobody there any more."""
        self._sick[workload.id] += 1
        if self._sick[workload.id] >= SICK_ROUNDS:
            message = "The server lives, but does not answer its health check."
            self._move(workload, WorkloadState.STARTING, reason="UNHEALTHY", message=message)

    def _end(self, workload: Workload, seen: Observation | None) -> None:
        if seen is not None and not seen.phase.is_terminal:
            asked_at = self._asked_at.setdefault(workload.id, time.monotonic())
            late = time.monotonic() - asked_at > planner.SERVER_GRACE_SECONDS
            self._launcher.cancel(workload.launch_name, workload.directory, now=late)
            return
        self._launcher.forget(workload.launch_name, workload.directory)
        with self._database.transaction() as session:
            row = repository.lock_workload(session, workload.id)
            if row is not None:
                session.delete(row)
        self._asked_at.pop(workload.id, None)
        _log.info("workload ended", workload=workload.name)

    def _move(self, workload: Workload, state: WorkloadState, *, reason: str, message: str, base_url: str = "") -> None:
        """Takes over what was seen; nothing is written while nothing changes."""
        if (workload.state, workload.reason, workload.base_url) == (state, reason, base_url):
            return
        with self._database.transaction() as session:
            row = repository.lock_workload(session, workload.id)
            if row is not None and row.wanted:
                self._publish(session, row.move(state, reason=reason, message=message, base_url=base_url))
