"""What other services do with workloads: have one run, look at it, end it."""

from sqlalchemy.orm import Session

from espalier_common.artifacts import ArtifactStore
from espalier_common.db import new_id
from espalier_common.errors import FieldViolation
from espalier_training_orchestrator.changes import Publish, Wake
from espalier_training_orchestrator.errors import WorkloadInvalid, WorkloadNotFound
from espalier_training_orchestrator.locks import wait_for_turn
from espalier_training_orchestrator.workloads import repository
from espalier_training_orchestrator.workloads.models import Workload, WorkloadState

RECONCILER = "workloads"
"""Topic under which the reconciler of workloads is woken."""


class Workloads:
    """The use cases."""

    def __init__(self, *, artifacts: ArtifactStore, publish: Publish, wake: Wake) -> None:
        self._artifacts = artifacts
        self._publish = publish
        self._wake = wake

    def create(
        self, session: Session, *, name: str, model_uri: str, served_model_name: str, device: str, owner_id: str
    ) -> Workload:
        """Makes sure that this runs. The same again changes nothing; one that failed is launched anew, and so is one
        of which something else is asked now. Raises WorkloadInvalid when there is no such model.
        """
        self._check_model(model_uri)
        wait_for_turn(session, f"workload/{name}")
        present = repository.find_wanted(session, name, lock=True)
        if present is not None:
            asked = (model_uri, served_model_name, device)
            same = (present.model_uri, present.served_model_name, present.device) == asked
            if same and present.state is not WorkloadState.FAILED:
                present.owner_id = present.owner_id or owner_id
                return present
            present.wanted = False
            session.flush()
        workload = Workload(
            id=new_id(),
            name=name,
            model_uri=model_uri,
            served_model_name=served_model_name,
            device=device,
            owner_id=owner_id,
        )
        workload.directory = str(self._artifacts.local_path(self._artifacts.uri("workloads", workload.launch_name)))
        session.add(workload)
        moved = workload.move(WorkloadState.STARTING, reason="LAUNCHING", message="Being launched.")
        session.flush()
        self._publish(session, moved)
        self._wake(session, RECONCILER)
        return workload

    def get(self, session: Session, name: str) -> Workload:
        """One workload. Raises WorkloadNotFound."""
        workload = repository.find_wanted(session, name)
        if workload is None:
            raise WorkloadNotFound("workload", name)
        return workload

    def delete(self, session: Session, name: str) -> None:
        """Ends it and forgets it; nothing happens when there is none."""
        workload = repository.find_wanted(session, name, lock=True)
        if workload is not None:
            workload.wanted = False
            self._wake(session, RECONCILER)

    def _check_model(self, model_uri: str) -> None:
        try:
            there = (self._artifacts.local_path(model_uri) / "config.json").is_file()
        except ValueError:
            there = False
        if not there:
            description = "names no model directory in the artifact store"
            raise WorkloadInvalid(
                f"There is no model at {model_uri!r}.",
                violations=[FieldViolation("workload.model_uri", description, "MODEL_NOT_FOUND")],
            )
