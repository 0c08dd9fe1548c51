"""Every select on models, versions and deployments. Models and their versions are narrowed to what a caller sees."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, contains_eager, joinedload

from espalier_common.db import utc_now
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import visible
from espalier_model_registry.models import WORKLOAD_PREFIX, Deployment, DeploymentState, Model, ModelVersion


def find_model(session: Session, model_id: str, principal: Principal, *, lock: bool = False) -> Model | None:
    """The model; locked against other writers until the transaction ends when asked."""
    statement = select(Model).where(Model.id == model_id, visible(Model.owner_id, principal))
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def find_model_by_name(session: Session, name: str, *, owner_id: str) -> Model | None:
    """The owner's model of this name."""
    return session.scalars(select(Model).where(Model.owner_id == owner_id, Model.name == name)).one_or_none()


def list_models(session: Session, principal: Principal, *, name: str, page: PageRequest) -> Page[Model]:
    """Models, newest first; only those of this name when one is given."""
    statement = select(Model).where(visible(Model.owner_id, principal))
    if name:
        statement = statement.where(Model.name == name)
    return paginate(session, statement, order=(Model.created_at.desc(), Model.id.desc()), page=page)


def find_version(session: Session, version_id: str, principal: Principal) -> ModelVersion | None:
    """The version with its model. Whoever sees the model sees its versions."""
    statement = (
        select(ModelVersion)
        .join(ModelVersion.model)
        .options(contains_eager(ModelVersion.model))
        .where(ModelVersion.id == version_id, visible(Model.owner_id, principal))
    )
    return session.scalars(statement).one_or_none()


def list_versions(session: Session, model_id: str, *, page: PageRequest) -> Page[ModelVersion]:
    """Versions of a model, newest first, with their model."""
    statement = select(ModelVersion).options(joinedload(ModelVersion.model)).where(ModelVersion.model_id == model_id)
    return paginate(session, statement, order=(ModelVersion.number.desc(),), page=page)


def find_version_of_run(session: Session, model_id: str, run_id: str) -> ModelVersion | None:
    """The version of this model that a run was registered as."""
    return session.scalars(
        select(ModelVersion)
        .options(joinedload(ModelVersion.model))
        .where(ModelVersion.model_id == model_id, ModelVersion.run_id == run_id)
    ).one_or_none()


def first_version_id_of_run(session: Session, run_id: str) -> str | None:
    """Id of the first version, of any model, that a run was registered as."""
    return session.scalars(
        select(ModelVersion.id).where(ModelVersion.run_id == run_id).order_by(ModelVersion.id).limit(1)
    ).one_or_none()


def fill_base_version(session: Session, *, base_run_id: str, version_id: str) -> None:
    """Versions that started from the run's model, and knew no registered base yet, learn it."""
    session.execute(
        update(ModelVersion)
        .where(ModelVersion.base_run_id == base_run_id, ModelVersion.base_model_version_id.is_(None))
        .values(base_model_version_id=version_id)
    )


def find_deployment(session: Session, deployment_id: str, *, lock: bool = False) -> Deployment | None:
    """The deployment; locked against other writers until the transaction ends when asked."""
    statement = select(Deployment).where(Deployment.id == deployment_id)
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def find_newest_deployment_by_name(session: Session, name: str) -> Deployment | None:
    """The newest deployment of this name; where one wants a server it is that one, since it keeps the name taken."""
    newest = (
        select(Deployment).where(Deployment.name == name).order_by(Deployment.created_at.desc(), Deployment.id.desc())
    )
    return session.scalars(newest.limit(1)).one_or_none()


def find_live_deployment_by_name(session: Session, name: str) -> Deployment | None:
    """The deployment that holds this name; at most one that wants a server does."""
    wanting = [state for state in DeploymentState if state.wants_server]
    return session.scalars(
        select(Deployment).where(Deployment.name == name, Deployment.state.in_(wanting))
    ).one_or_none()


def list_deployments(
    session: Session, *, state: DeploymentState | None, name: str, page: PageRequest
) -> Page[Deployment]:
    """Deployments, newest first; only those in a state, or of a name, when one is given."""
    statement = select(Deployment)
    if state is not None:
        statement = statement.where(Deployment.state == state)
    if name:
        statement = statement.where(Deployment.name == name)
    return paginate(session, statement, order=(Deployment.created_at.desc(), Deployment.id.desc()), page=page)


def wake_deployment_of(session: Session, workload_name: str) -> bool:
    """Makes the deployment due now if it is looked at at all; False when the workload is no deployment's."""
    deployment_id = workload_name.removeprefix(WORKLOAD_PREFIX)
    if deployment_id == workload_name or not is_uuid(deployment_id):
        return False
    woken = session.scalars(
        update(Deployment)
        .where(Deployment.id == deployment_id, Deployment.check_at.is_not(None))
        .values(check_at=utc_now())
        .returning(Deployment.id)
    )
    return woken.one_or_none() is not None


def due_deployment_ids(session: Session, *, now: datetime, limit: int) -> Sequence[str]:
    """Deployments to be looked at now, the longest waiting first."""
    return session.scalars(
        select(Deployment.id).where(Deployment.check_at <= now).order_by(Deployment.check_at).limit(limit)
    ).all()


def claim_deployment(session: Session, deployment_id: str) -> Deployment | None:
    """The deployment with its version, claimed for reconciling; None when another process has it.

    The claim ends with the transaction, or with the process. Its row stays free: users may change it meanwhile.
    """
    key = int.from_bytes(uuid.UUID(deployment_id).bytes[8:], signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(key))):
        return None
    return session.scalars(
        select(Deployment).options(joinedload(Deployment.version)).where(Deployment.id == deployment_id)
    ).one_or_none()


def reread_deployment(session: Session, deployment: Deployment) -> None:
    """Locks the row and loads it as it is now."""
    session.refresh(deployment, with_for_update={"of": Deployment})


def postpone(session: Session, deployment_id: str, *, until: datetime) -> None:
    """Has the deployment looked at later."""
    session.execute(update(Deployment).where(Deployment.id == deployment_id).values(check_at=until))


def next_check_at(session: Session) -> datetime | None:
    """When the next deployment is to be looked at; None when none is."""
    return session.scalars(
        select(Deployment.check_at).where(Deployment.check_at.is_not(None)).order_by(Deployment.check_at).limit(1)
    ).one_or_none()
