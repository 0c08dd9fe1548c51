"""What users do with datasets: create one, put a version into it, look at versions and findings."""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from espalier_common.errors import EspalierError, FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.changes import Wake
from espalier_training_orchestrator.datasets import repository
from espalier_training_orchestrator.datasets.models import Dataset, DatasetFile, DatasetFinding, DatasetVersion
from espalier_training_orchestrator.errors import (
    DatasetFilesInvalid,
    DatasetNameTaken,
    DatasetNotFound,
    DatasetVersionNotFound,
)
from espalier_training_orchestrator.storage import Storage

CHECKER = "datasets"
"""Topic under which the checker of rows is woken."""


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A finished upload that becomes a file of a version."""

    split: str
    upload_id: str
    name: str


class Datasets:
    """The use cases. Every one sees only what its caller may see."""

    def __init__(self, uploads: UploadStore, *, storage: Storage, wake: Wake) -> None:
        self._uploads = uploads
        self._storage = storage
        self._wake = wake

    def create(self, session: Session, principal: Principal, *, name: str, description: str) -> Dataset:
        """Creates an empty dataset. Raises DatasetNameTaken."""
        if repository.name_is_taken(session, principal.subject, name):
            raise DatasetNameTaken(f"You have a dataset named {name!r} already; choose another name.")
        dataset = Dataset(owner_id=principal.subject, name=name, description=description)
        session.add(dataset)
        session.flush()
        return dataset

    def get(self, session: Session, principal: Principal, dataset_id: str) -> Dataset:
        """One dataset. Raises DatasetNotFound."""
        dataset = repository.find_dataset(session, dataset_id, principal)
        if dataset is None:
            raise DatasetNotFound("dataset", dataset_id)
        return dataset

    def list(self, session: Session, principal: Principal, *, name: str, page: PageRequest) -> Page[Dataset]:
        """The datasets, newest first."""
        return repository.list_datasets(session, principal, name=name, page=page)

    def create_version(
        self,
        session: Session,
        principal: Principal,
        dataset_id: str,
        *,
        files: Sequence[NewFile],
        row_format: str,
        skip_invalid_rows: bool,
    ) -> DatasetVersion:
        """Makes a version out of finished uploads; its rows are checked later, in the background.

        Raises DatasetNotFound, DatasetFilesInvalid with everything that is wrong with the files, and ResourceExhausted
        when they are over the owner's limit of stored bytes.
        """
        owner_id = self.get(session, principal, dataset_id).owner_id
        entities = self._files(files, principal)
        # Before anything is locked: auth is asked, which may take seconds to answer.
        reservation_id = self._storage.reserve(owner_id, sum(file.size_bytes for file in entities))
        dataset = repository.find_dataset(session, dataset_id, principal, lock=True)
        if dataset is None:
            raise DatasetNotFound("dataset", dataset_id)
        dataset.latest_version += 1
        version = DatasetVersion(
            dataset_id=dataset.id,
            version=dataset.latest_version,
            owner_id=dataset.owner_id,
            format=row_format,
            skip_invalid_rows=skip_invalid_rows,
            message="The rows are being checked.",
            files=list(entities),
        )
        session.add(version)
        self._storage.tell(session, dataset.owner_id, reservation_id=reservation_id)
        self._wake(session, CHECKER)
        return version

    def get_version(self, session: Session, principal: Principal, version_id: str) -> DatasetVersion:
        """One version with its files. Raises DatasetVersionNotFound."""
        version = repository.find_version(session, version_id, principal)
        if version is None:
            raise DatasetVersionNotFound("dataset version", version_id)
        return version

    def list_versions(
        self, session: Session, principal: Principal, dataset_id: str, *, page: PageRequest
    ) -> Page[DatasetVersion]:
        """The versions of a dataset, newest first. Raises DatasetNotFound."""
        self.get(session, principal, dataset_id)
        return repository.list_versions(session, dataset_id, page=page)

    def list_findings(
        self, session: Session, principal: Principal, version_id: str, *, page: PageRequest
    ) -> Page[DatasetFinding]:
        """What was found in the rows of a version. Raises DatasetVersionNotFound."""
        self.get_version(session, principal, version_id)
        return repository.list_findings(session, version_id, page=page)

    def _files(self, files: Sequence[NewFile], principal: Principal) -> Sequence[DatasetFile]:
        found: list[DatasetFile] = []
        violations: list[FieldViolation] = []
        names: set[str] = set()
        for position, file in enumerate(files):
            name = file.name or file.split
            if name in names:
                place = f"version.files[{position}].name"
                violations.append(
                    FieldViolation(
                        place, f"is {name!r}, which another file of this version has; give each its own name"
                    )
                )
            names.add(name)
            entity = self._file(file, position=position, principal=principal, violations=violations)
            if entity is not None:
                found.append(entity)
        if violations:
            raise DatasetFilesInvalid("The files cannot make a dataset version.", violations=violations)
        return found

    def _file(
        self, file: NewFile, *, position: int, principal: Principal, violations: MutableSequence[FieldViolation]
    ) -> DatasetFile | None:
        place = f"version.files[{position}].upload_id"
        try:
            upload = self._uploads.get(file.upload_id) if file.upload_id else None
        except EspalierError:
            upload = None
        # Somebody else's upload is answered like one that never was.
        if upload is None or upload.owner != principal.subject:
            violations.append(
                FieldViolation(place, f"names no upload of yours: {file.upload_id!r}", "UPLOAD_NOT_FOUND")
            )
            return None
        if not upload.complete:
            description = f"is not finished: {upload.offset} of {upload.length} bytes are there; upload the rest first"
            violations.append(FieldViolation(place, description, "UPLOAD_NOT_FINISHED"))
            return None
        return DatasetFile(
            position=position,
            split=file.split,
            name=file.name or file.split,
            upload_id=file.upload_id,
            filename=upload.filename,
            size_bytes=upload.length,
            sha256=upload.sha256,
        )
