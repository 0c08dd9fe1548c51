"""Datasets, versions, files and what was found in the rows."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from espalier_common.db import BigInt, Id, new_id, utc_now
from espalier_training_orchestrator.entity import Base


class VersionState(StrEnum):
    """Where a dataset version stands."""

    VALIDATING = "VALIDATING"
    READY = "READY"
    REJECTED = "REJECTED"


class Dataset(Base):
    """A named collection of training data; its content stands in its versions."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("owner_id", "name"), Index(None, "created_at", "id"))

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    latest_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DatasetVersion(Base):
    """An immutable state of a dataset. Its rows are checked once, after which it is READY or REJECTED for good."""

    __tablename__ = "dataset_versions"
    __table_args__ = (
        UniqueConstraint("dataset_id", "version"),
        Index(None, "state", "created_at"),
        Index(None, "owner_id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    dataset_id: Mapped[Id] = mapped_column(ForeignKey("datasets.id"))
    version: Mapped[int]
    owner_id: Mapped[str]
    format: Mapped[str] = mapped_column(default="")
    """Asked for by the caller, or found out from the rows; empty until then."""
    skip_invalid_rows: Mapped[bool] = mapped_column(default=False)
    state: Mapped[VersionState] = mapped_column(default=VersionState.VALIDATING)
    message: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    checked_at: Mapped[datetime | None]

    files: Mapped[list["DatasetFile"]] = relationship(order_by="DatasetFile.position", lazy="raise")

    def accept(self, *, row_format: str, message: str) -> None:
        """The check is over: runs may use the version."""
        self._settle(VersionState.READY, message)
        self.format = row_format

    def reject(self, *, message: str) -> None:
        """The check is over: no run may use the version."""
        self._settle(VersionState.REJECTED, message)

    def _settle(self, state: VersionState, message: str) -> None:
        if self.state is not VersionState.VALIDATING:
            raise ValueError(f"version {self.id} is {self.state} already")
        self.state, self.message, self.checked_at = state, message, utc_now()


class DatasetFile(Base):
    """One file of a version: what was uploaded, what was counted in it, and what a run trains on."""

    __tablename__ = "dataset_files"
    __table_args__ = (UniqueConstraint("version_id", "name"),)

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    version_id: Mapped[Id] = mapped_column(ForeignKey("dataset_versions.id"))
    position: Mapped[int]
    split: Mapped[str]
    name: Mapped[str]
    upload_id: Mapped[Id]
    filename: Mapped[str]
    uri: Mapped[str] = mapped_column(default="")
    """Where the bytes lie; empty until they were taken over from the upload."""
    sha256: Mapped[str] = mapped_column(default="")
    size_bytes: Mapped[BigInt] = mapped_column(default=0)
    rows: Mapped[int] = mapped_column(default=0)
    accepted_rows: Mapped[int] = mapped_column(default=0)
    rejected_rows: Mapped[int] = mapped_column(default=0)
    warned_rows: Mapped[int] = mapped_column(default=0)
    training_uri: Mapped[str] = mapped_column(default="")
    """Rows that a run reads: the file itself, or the accepted rows alone in canonical form."""
    training_format: Mapped[str] = mapped_column(default="")


class DatasetFinding(Base):
    """Something found in a row. There are at most so many of a file as the settings say; the counts are exact."""

    __tablename__ = "dataset_findings"
    __table_args__ = (Index(None, "version_id", "id"),)

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    version_id: Mapped[Id] = mapped_column(ForeignKey("dataset_versions.id"))
    file: Mapped[str]
    line: Mapped[int]
    pointer: Mapped[str]
    reason: Mapped[str]
    severity: Mapped[str]
    expected: Mapped[str]
    found: Mapped[str]
    message: Mapped[str]
