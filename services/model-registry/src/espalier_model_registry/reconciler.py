"""Keeps model servers as the deployments want them: desired against observed, one idempotent step at a time.

Level-triggered: events only wake it, what it does follows from what it sees (`decisions`). Safe to kill anywhere:
names are deterministic, the intent is stored before the call, and each step may be repeated.
"""

import secrets
from datetime import timedelta

from sqlalchemy.exc import OperationalError

from espalier_common.db import Database, utc_now
from espalier_common.errors import EspalierError
from espalier_common.rounds import IDLE_SECONDS, go_round
from espalier_common.telemetry import get_logger
from espalier_model_registry import repository
from espalier_model_registry.decisions import Circumstances, Finding, Removal, Seen, Trouble, conclude
from espalier_model_registry.models import Deployment, DeploymentState
from espalier_model_registry.servers import Server, ServerState, Workloads
from espalier_model_registry.service import DEPLOYMENTS, Publish
from espalier_model_registry.settings import ModelRegistrySettings

BATCH = 100
CLAIMED_PAUSE = 0.5
DEFECT_PAUSE = timedelta(seconds=30)

_log = get_logger(__name__)


class Reconciler:
    """`run` is a background task of the service; any number of replicas may run one."""

    def __init__(
        self, database: Database, *, workloads: Workloads, publish: Publish, settings: ModelRegistrySettings
    ) -> None:
        self._database = database
        self._workloads = workloads
        self._publish = publish
        self._settings = settings
        self._process = secrets.token_hex(8)

    async def run(self) -> None:
        """Reconciles for ever: at once after a commit that changed a deployment, and when the next look is due."""
        await go_round(self.reconcile, database=self._database, topic=DEPLOYMENTS)

    def reconcile(self) -> float:
        """Takes one step for each deployment that is due; gives the seconds until the next is. Blocks."""
        with self._database.transaction() as session:
            due = repository.due_deployment_ids(session, now=utc_now(), limit=BATCH)
        stepped = [self._step_safely(deployment_id) for deployment_id in due]
        with self._database.transaction() as session:
            following = repository.next_check_at(session)
        if following is None:
            return IDLE_SECONDS
        # What another replica has claimed stays due: no busy loop around it.
        least = CLAIMED_PAUSE if due and not any(stepped) else 0.0
        return min(max((following - utc_now()).total_seconds(), least), IDLE_SECONDS)

    def _step_safely(self, deployment_id: str) -> bool:
        """A step; one that fails by a defect holds up no other deployment."""
        try:
            return self._step(deployment_id)
        except OperationalError:
            raise
        except Exception:
            _log.exception("deployment could not be reconciled, trying again", deployment_id=deployment_id)
            with self._database.transaction() as session:
                repository.postpone(session, deployment_id, until=utc_now() + DEFECT_PAUSE)
            return True

    def _step(self, deployment_id: str) -> bool:
        """One look and what follows from it; False when another process is at it."""
        with self._database.transaction() as session:
            deployment = repository.claim_deployment(session, deployment_id)
            if deployment is None:
                return False
            try:
                finding = self._find_out(deployment)
            except EspalierError as error:
                finding = Trouble(error)
            before, looked_at = deployment.state, deployment.check_at
            repository.reread_deployment(session, deployment)
            if deployment.state is not before:
                # The user changed his mind meanwhile: what was found is stale.
                deployment.wake()
                return True
            woken = deployment.check_at != looked_at
            event = conclude(deployment, finding, self._circumstances())
            if woken:
                # An event came in after the look: look again.
                deployment.wake()
            if event is not None:
                self._publish(session, event)
        if event is not None:
            _log.info(
                "deployment changed",
                deployment_id=deployment_id,
                before=event.before.value,
                after=event.after.value,
                reason=event.reason,
            )
        return True

    def _find_out(self, claimed: Deployment) -> Finding:
        """The calls of one step."""
        name = claimed.workload_name
        if not claimed.state.wants_server:
            return self._remove(name)
        server = self._workloads.find(name)
        if server is not None and not server.has_owner and server.state is not ServerState.FAILED:
            server = self._launch(claimed)  # it runs already: this only says for whom
        if claimed.state is not DeploymentState.PENDING:
            return Seen(server)
        if server is not None and server.state is ServerState.FAILED:
            # One of before, in the way of the new one.
            return self._remove(name)
        if server is None:
            server = self._launch(claimed)
        return Seen(server)

    def _launch(self, claimed: Deployment) -> Server:
        return self._workloads.launch(
            name=claimed.workload_name,
            model_uri=claimed.version.uri,
            served_name=claimed.name,
            device=claimed.device,
            owner_id=claimed.owner_id,
        )

    def _remove(self, name: str) -> Removal:
        self._workloads.remove(name)
        return Removal(complete=self._workloads.find(name) is None)

    def _circumstances(self) -> Circumstances:
        return Circumstances(
            now=utc_now(),
            process=self._process,
            starting_seconds=self._settings.model_registry_starting_poll_seconds,
            ready_seconds=self._settings.model_registry_ready_poll_seconds,
        )
