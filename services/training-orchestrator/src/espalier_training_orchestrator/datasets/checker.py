"""Checks the rows of new versions, in the background and one version at a time.

Level-triggered: whatever is VALIDATING is work to do, so a check that a crash cut off is simply done again.
Two replicas never check the same version at once.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from espalier_common.artifacts import ArtifactStore
from espalier_common.db import Database
from espalier_common.errors import EspalierError, NotFound
from espalier_common.rounds import IDLE_SECONDS, go_round
from espalier_common.telemetry import get_logger
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.datasets import repository
from espalier_training_orchestrator.datasets.models import DatasetFile, DatasetFinding, DatasetVersion
from espalier_training_orchestrator.datasets.service import CHECKER
from espalier_training_orchestrator.locks import single_flight
from espalier_training_orchestrator.storage import Storage

if TYPE_CHECKING:
    from espalier_training_orchestrator.datasets.inspection import CheckedFile

RETRY_SECONDS = 2.0
TRIES = 3

_log = get_logger(__name__)


class DatasetChecker:
    """Takes uploads over into the artifact store and settles what becomes of each version."""

    def __init__(
        self,
        database: Database,
        *,
        artifacts: ArtifactStore,
        uploads: UploadStore,
        storage: Storage,
        findings_per_file: int,
    ) -> None:
        self._database = database
        self._storage = storage
        self._artifacts = artifacts
        self._uploads = uploads
        self._findings_per_file = findings_per_file
        self._failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Checks for ever."""
        await go_round(self.tick, database=self._database, topic=CHECKER)

    def tick(self) -> float:
        """Checks every version that waits for it; gives the seconds until the next round."""
        with self._database.transaction() as session:
            waiting = repository.unchecked_version_ids(session)
        settled = [self._check(version_id) for version_id in waiting]
        return IDLE_SECONDS if all(settled) else RETRY_SECONDS

    def _check(self, version_id: str) -> bool:
        with single_flight(self._database.engine, f"dataset-version/{version_id}") as mine:
            if not mine:
                return False
            with self._database.transaction() as session:
                version = repository.load_unchecked_version(session, version_id)
            if version is None:
                return False
            checked = self._check_files(version)
            if checked is not None:
                self._settle(version_id, checked)
            return checked is not None

    def _check_files(self, version: DatasetVersion) -> "list[CheckedFile] | None":
        """None when it is to be tried again."""
        try:
            return [self._check_file(file, version.format) for file in version.files]
        except (OSError, EspalierError):
            # The disk is full, the store is away: not the dataset's fault.
            _log.exception("dataset version could not be checked, trying again", version_id=version.id)
            return None
        except Exception:
            # A defect of ours, brought out by these rows: it must not keep other versions waiting for ever.
            self._failures[version.id] += 1
            _log.exception("the check of a dataset version failed", version_id=version.id)
            return self._give_up(version) if self._failures[version.id] >= TRIES else None

    def _give_up(self, version: DatasetVersion) -> "list[CheckedFile]":
        from espalier_training_orchestrator.datasets.inspection import CheckedFile

        del self._failures[version.id]
        problem = "The rows could not be checked; an administrator finds the cause in the log of the service."
        return [CheckedFile(problem=problem), *(CheckedFile() for _ in version.files[1:])]

    def _check_file(self, file: DatasetFile, asked_format: str) -> "CheckedFile":
        from espalier_training_orchestrator.datasets.inspection import CheckedFile, Inspector

        try:
            blob = self._artifacts.put_stream(self._uploads.chunks(file.upload_id))
        except NotFound:
            return CheckedFile(problem=f"{file.filename}: its upload is gone; upload it again.")
        inspector = Inspector(self._artifacts, findings_per_file=self._findings_per_file)
        return inspector.inspect(blob, filename=file.filename, asked_format=asked_format)

    def _settle(self, version_id: str, checked: "list[CheckedFile]") -> None:
        with self._database.transaction() as session:
            version = repository.load_unchecked_version(session, version_id, lock=True)
            if version is None:
                return
            for file, result in zip(version.files, checked, strict=True):
                _take_results(file, result)
            _decide(version, checked)
            repository.replace_findings(session, version_id, _findings(version, checked))
            self._storage.tell(session, version.owner_id)
            uploads = [file.upload_id for file in version.files]
            _log.info("dataset version checked", version_id=version_id, state=version.state.value)
        for upload_id in uploads:
            # The bytes are ours now; an upload left behind by a crash here costs only disk until it expires.
            with suppress(NotFound):
                self._uploads.delete(upload_id)


def _decide(version: DatasetVersion, checked: "list[CheckedFile]") -> None:
    problems = [result.problem for result in checked if result.problem]
    formats = sorted({result.row_format.value for result in checked if result.row_format})
    if not problems and len(formats) > 1:
        problems.append(f"The files have different forms ({', '.join(formats)}); give each form a version of its own.")
    rejected = sum(result.rejected_rows for result in checked)
    accepted = sum(result.accepted_rows for result in checked)
    if not problems and rejected and not version.skip_invalid_rows:
        problems.append(
            f"{_rows(rejected)} of {rejected + accepted} cannot be used; the findings say where and why. "
            "Mend them, or create the version again with skip_invalid_rows."
        )
    if not problems and not accepted:
        problems.append("There is no usable row in it.")
    if problems:
        version.reject(message=" ".join(problems))
    else:
        left_out = f"; {_rows(rejected)} left out" if rejected else ""
        version.accept(row_format=formats[0], message=f"{_rows(accepted)} can be used{left_out}.")


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _take_results(file: DatasetFile, result: "CheckedFile") -> None:
    file.uri, file.training_uri, file.training_format = result.uri, result.training_uri, result.training_format
    if result.uri:
        file.sha256, file.size_bytes = result.sha256, result.size_bytes
    file.rows, file.accepted_rows = result.rows, result.accepted_rows
    file.rejected_rows, file.warned_rows = result.rejected_rows, result.warned_rows


def _findings(version: DatasetVersion, checked: "list[CheckedFile]") -> Iterator[DatasetFinding]:
    for file, result in zip(version.files, checked, strict=True):
        for finding in result.findings:
            yield DatasetFinding(
                version_id=version.id,
                file=file.name,
                line=finding.line,
                pointer=finding.pointer,
                reason=finding.reason.value,
                severity=finding.severity.value,
                expected=finding.expected,
                found=finding.found,
                message=f"{file.name}, {finding}",
            )
