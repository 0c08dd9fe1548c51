"""Every select on datasets."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, selectinload

from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import visible
from espalier_training_orchestrator.datasets.models import (
    Dataset,
    DatasetFile,
    DatasetFinding,
    DatasetVersion,
    VersionState,
)


def find_dataset(session: Session, dataset_id: str, principal: Principal, *, lock: bool = False) -> Dataset | None:
    """One dataset, if the caller may see it; `lock` keeps others from numbering versions meanwhile."""
    query = select(Dataset).where(Dataset.id == dataset_id, visible(Dataset.owner_id, principal))
    # As it is once it is locked, and not as it was when it was looked at before.
    locking = query.with_for_update().execution_options(populate_existing=True)
    return session.scalar(locking if lock else query)


def name_is_taken(session: Session, owner_id: str, name: str) -> bool:
    """True when the owner has a dataset of that name."""
    return session.scalar(select(Dataset.id).where(Dataset.owner_id == owner_id, Dataset.name == name)) is not None


def list_datasets(session: Session, principal: Principal, *, name: str, page: PageRequest) -> Page[Dataset]:
    """The datasets that the caller may see, newest first; only the one of that name when given."""
    query = select(Dataset).where(visible(Dataset.owner_id, principal))
    if name:
        query = query.where(Dataset.name == name)
    return paginate(session, query, order=(Dataset.created_at.desc(), Dataset.id.desc()), page=page)


def find_version(session: Session, version_id: str, principal: Principal) -> DatasetVersion | None:
    """One version with its files, if the caller may see it."""
    query = select(DatasetVersion).where(DatasetVersion.id == version_id, visible(DatasetVersion.owner_id, principal))
    return session.scalar(query.options(selectinload(DatasetVersion.files)))


def find_versions(session: Session, version_ids: Iterable[str]) -> dict[str, DatasetVersion]:
    """Versions with their files, by id, whoever owns them."""
    query = select(DatasetVersion).where(DatasetVersion.id.in_(list(version_ids)))
    return {version.id: version for version in session.scalars(query.options(selectinload(DatasetVersion.files)))}


def uploads_in_use(session: Session) -> set[str]:
    """Ids of the uploads whose version is still to be checked."""
    query = select(DatasetFile.upload_id).join(DatasetVersion, DatasetVersion.id == DatasetFile.version_id)
    return set(session.scalars(query.where(DatasetVersion.state == VersionState.VALIDATING)))


def stored_bytes(session: Session, owner_id: str) -> int:
    """Bytes of the files of somebody's versions, as uploaded."""
    total = select(func.sum(DatasetFile.size_bytes)).join(DatasetVersion, DatasetVersion.id == DatasetFile.version_id)
    return int(session.scalar(total.where(DatasetVersion.owner_id == owner_id)) or 0)


def owners_of_bytes(session: Session) -> set[str]:
    """Who has dataset versions."""
    return set(session.scalars(select(DatasetVersion.owner_id).distinct()))


def list_versions(session: Session, dataset_id: str, *, page: PageRequest) -> Page[DatasetVersion]:
    """The versions of a dataset with their files, newest first."""
    query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset_id)
    query = query.options(selectinload(DatasetVersion.files))
    return paginate(session, query, order=(DatasetVersion.version.desc(), DatasetVersion.id.desc()), page=page)


def unchecked_version_ids(session: Session) -> Sequence[str]:
    """Versions whose rows are still to be checked, oldest first."""
    query = select(DatasetVersion.id).where(DatasetVersion.state == VersionState.VALIDATING)
    return session.scalars(query.order_by(DatasetVersion.created_at)).all()


def load_unchecked_version(session: Session, version_id: str, *, lock: bool = False) -> DatasetVersion | None:
    """A version with its files, while it is still to be checked."""
    query = select(DatasetVersion).where(
        DatasetVersion.id == version_id, DatasetVersion.state == VersionState.VALIDATING
    )
    query = query.options(selectinload(DatasetVersion.files))
    return session.scalar(query.with_for_update() if lock else query)


def list_findings(session: Session, version_id: str, *, page: PageRequest) -> Page[DatasetFinding]:
    """What was found in the rows of a version, by file and line."""
    query = select(DatasetFinding).where(DatasetFinding.version_id == version_id)
    return paginate(session, query, order=(DatasetFinding.id.asc(),), page=page)


def replace_findings(session: Session, version_id: str, findings: Iterable[DatasetFinding]) -> None:
    """Keeps these findings of a version and none of an earlier, interrupted check."""
    session.execute(delete(DatasetFinding).where(DatasetFinding.version_id == version_id))
    session.add_all(findings)
