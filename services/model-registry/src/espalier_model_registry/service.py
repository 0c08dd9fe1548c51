"""Use cases: create and register models, deploy and undeploy them, say where a deployment answers."""

from collections.abc import Callable, Mapping
from typing import Protocol

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_common.db import announce, new_id
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_common.visibility import reaches
from espalier_model_registry import repository
from espalier_model_registry.errors import (
    DeploymentNameTaken,
    DeploymentNotFound,
    DeploymentNotReady,
    DeploymentOfAnother,
    ModelNameTaken,
    ModelNotFound,
    ModelVersionNotFound,
)
from espalier_model_registry.models import (
    Deployment,
    DeploymentState,
    DomainEvent,
    Model,
    ModelVersion,
    TrainedModel,
    VersionRegistered,
)

STOP_PERMISSION = "models.deployments.stop"
DEPLOYMENTS = "deployments"
"""Topic announced when the reconciler has something to do."""
ASKING_SECONDS = 60.0

Publish = Callable[[Session, DomainEvent], None]
"""Puts an event into the outbox, in the same transaction as the change."""


class Runs(Protocol):
    """What the registry asks of the training orchestrator about runs."""

    def trained_model(self, run_id: str) -> TrainedModel:
        """The finished model of a run, with the caller's rights. Raises its errors, such as NotFound."""


class Limits(Protocol):
    """What is asked of auth, in the service's own name."""

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        """Holds amounts of somebody's limits. Raises ResourceExhausted, and Unavailable when nobody can tell."""


class Registry:
    """The use cases. Each runs in the caller's transaction; the edge commits."""

    def __init__(self, publish: Publish, *, limits: Limits) -> None:
        self._publish = publish
        self._limits = limits

    def create_model(self, session: Session, principal: Principal, *, name: str, description: str) -> Model:
        """Creates a model without versions. Raises ModelNameTaken."""
        taken = ModelNameTaken(f"You have a model {name!r} already; register the run there, or choose another name.")
        if repository.find_model_by_name(session, name, owner_id=principal.subject):
            raise taken
        model = Model(name=name, description=description, owner_id=principal.subject)
        _add(session, model, taken)
        return model

    def get_model(self, session: Session, principal: Principal, model_id: str) -> Model:
        """Raises ModelNotFound."""
        model = repository.find_model(session, model_id, principal)
        if model is None:
            raise ModelNotFound("model", model_id)
        return model

    def list_models(self, session: Session, principal: Principal, *, name: str, page: PageRequest) -> Page[Model]:
        """Newest first."""
        return repository.list_models(session, principal, name=name, page=page)

    def find_registered(
        self, session: Session, principal: Principal, *, model_id: str, run_id: str
    ) -> ModelVersion | None:
        """The version that the run was registered as already; None when it was not. Raises ModelNotFound."""
        self.get_model(session, principal, model_id)
        return repository.find_version_of_run(session, model_id, run_id)

    def register_version(
        self, session: Session, principal: Principal, *, model_id: str, trained: TrainedModel
    ) -> ModelVersion:
        """Registers the model of a run as the next version; the same run again gives the version that is there.

        Raises ModelNotFound.
        """
        # The lock on the model makes numbers race-free and two registrations of one run one version.
        model = repository.find_model(session, model_id, principal, lock=True)
        if model is None:
            raise ModelNotFound("model", model_id)
        if known := repository.find_version_of_run(session, model_id, trained.run_id):
            return known
        model.latest_version += 1
        base = trained.base_run_id
        version = ModelVersion(
            model=model,
            model_id=model.id,
            number=model.latest_version,
            run_id=trained.run_id,
            step=trained.step,
            dataset_version_ids=list(trained.dataset_version_ids),
            base_run_id=base,
            base_model_version_id=repository.first_version_id_of_run(session, base) if base else None,
            uri=trained.uri,
            manifest_sha256=trained.manifest_sha256,
            parameters=trained.parameters,
            template=trained.template,
            owner_id=principal.subject,
        )
        session.add(version)
        session.flush()
        repository.fill_base_version(session, base_run_id=version.run_id, version_id=version.id)
        self._publish(session, VersionRegistered(version=version))
        return version

    def get_version(self, session: Session, principal: Principal, version_id: str) -> ModelVersion:
        """Raises ModelVersionNotFound."""
        version = repository.find_version(session, version_id, principal)
        if version is None:
            raise ModelVersionNotFound("model version", version_id)
        return version

    def list_versions(
        self, session: Session, principal: Principal, *, model_id: str, page: PageRequest
    ) -> Page[ModelVersion]:
        """Newest first. Raises ModelNotFound."""
        self.get_model(session, principal, model_id)
        return repository.list_versions(session, model_id, page=page)

    def check_limits(self, principal: Principal, device: str) -> None:
        """Asks whether the caller has time of the device left; outside of any transaction, for auth answers.

        A server that runs is ended by no limit: how long it will run nobody knows, so nothing is held for it.
        Raises ResourceExhausted, Unavailable.
        """
        of_time = "GPU_SECONDS" if device == "cuda" else "CPU_SECONDS"
        self._limits.reserve(new_id(), user_id=principal.subject, amounts={of_time: 0.0}, seconds=ASKING_SECONDS)

    def deploy(self, session: Session, principal: Principal, *, name: str, version_id: str, device: str) -> Deployment:
        """Writes down that a version is to be served; the reconciler does it.

        Raises ModelVersionNotFound, DeploymentNameTaken.
        """
        self.get_version(session, principal, version_id)
        taken = DeploymentNameTaken(
            f"A deployment {name!r} runs already; stop it first, or choose another name for this one."
        )
        if repository.find_live_deployment_by_name(session, name):
            raise taken
        deployment = Deployment(name=name, model_version_id=version_id, device=device, owner_id=principal.subject)
        _add(session, deployment, taken)
        announce(session, DEPLOYMENTS)
        return deployment

    def get_deployment(self, session: Session, deployment_id: str) -> Deployment:
        """Whoever deployed it: deployments are there to be used by everybody. Raises DeploymentNotFound."""
        deployment = repository.find_deployment(session, deployment_id)
        if deployment is None:
            raise DeploymentNotFound("deployment", deployment_id)
        return deployment

    def list_deployments(
        self, session: Session, *, state: DeploymentState | None, name: str, page: PageRequest
    ) -> Page[Deployment]:
        """Everybody's, newest first."""
        return repository.list_deployments(session, state=state, name=name, page=page)

    def undeploy(self, session: Session, principal: Principal, deployment_id: str) -> Deployment:
        """Writes down that a deployment is to end; one that is stopping or stopped stays as it is.

        Raises DeploymentNotFound, DeploymentOfAnother.
        """
        deployment = repository.find_deployment(session, deployment_id, lock=True)
        if deployment is None:
            raise DeploymentNotFound("deployment", deployment_id)
        if not reaches(deployment.owner_id, principal):
            raise DeploymentOfAnother(
                STOP_PERMISSION,
                f"The deployment {deployment.name!r} is not yours; ask its owner or an administrator to stop it.",
            )
        if deployment.state in {DeploymentState.STOPPING, DeploymentState.STOPPED}:
            return deployment
        event = deployment.move_to(
            DeploymentState.STOPPING, reason="STOPPED_BY_USER", message="Its model server is being stopped."
        )
        if event:
            self._publish(session, event)
        deployment.wake()
        announce(session, DEPLOYMENTS)
        return deployment

    def deployment_of_model(self, session: Session, model: str) -> Deployment:
        """The deployment that callers of the OpenAI API name so, by its name or its id. Raises DeploymentNotFound."""
        found = repository.find_newest_deployment_by_name(session, model)
        if found is None and not is_uuid(model):
            raise DeploymentNotFound("deployment", model)
        return found or self.get_deployment(session, model)

    def endpoint_of(self, deployment: Deployment) -> Deployment:
        """The deployment, if it answers. Raises DeploymentNotReady."""
        if deployment.state is not DeploymentState.READY:
            state = deployment.state.value
            raise DeploymentNotReady(
                f"The deployment {deployment.name!r} does not answer: it is {state}. {deployment.message}",
                metadata={"state": state, "reason": deployment.reason},
            )
        return deployment


def wake_by_workload(session: Session, workload_name: str) -> None:
    """Has the reconciler look at once at the deployment whose server this is; nothing for other workloads."""
    if repository.wake_deployment_of(session, workload_name):
        announce(session, DEPLOYMENTS)


def _add(session: Session, row: Model | Deployment, taken: Exception) -> None:
    """Inserts; a row that came in between with the same name raises `taken`."""
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise taken from error
