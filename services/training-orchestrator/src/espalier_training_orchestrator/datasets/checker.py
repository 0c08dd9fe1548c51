"""Checks the rows of new versions, in the background and one version at a time.

Level-triggered: whatever is VALIDATING is work to do, so a check that a crash cut off is simply done again.
Two replicas never check the same version at once.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from espalier_common.artifacts import ArtifactStore
from espalier_common.db import Database
from espalier_common.errors import EspalierError, NotFound
from espalier_common.telemetry import get_logger
from espalier_common.uploads import UploadStore
from espalier_data.errors import DataError
from espalier_data.examples import Conversation
from espalier_data.findings import Finding, Severity
from espalier_data.formats import Format
from espalier_data.report import Limits, check_file
from espalier_data.rows import is_plain_text, read_rows
from espalier_data.templates import chat_template, template_names
from espalier_training_orchestrator.datasets import repository
from espalier_training_orchestrator.datasets.models import DatasetFile, DatasetFinding, DatasetVersion
from espalier_training_orchestrator.datasets.service import CHECKER
from espalier_training_orchestrator.locks import single_flight
from espalier_training_orchestrator.notifier import Notifier
from espalier_training_orchestrator.rounds import IDLE_SECONDS, go_round

RETRY_SECONDS = 2.0

_log = get_logger(__name__)


@dataclass(kw_only=True)
class CheckedFile:
    """What the check of one file found, and where its rows for training are."""

    row_format: Format | None = None
    uri: str = ""
    sha256: str = ""
    size_bytes: int = 0
    rows: int = 0
    accepted_rows: int = 0
    rejected_rows: int = 0
    warned_rows: int = 0
    training_uri: str = ""
    training_format: str = ""
    findings: list[Finding] = field(default_factory=list)
    problem: str = ""
    """Why the whole file cannot be used, in a sentence."""


class DatasetChecker:
    """Takes uploads over into the artifact store and settles what becomes of each version."""

    def __init__(
        self, database: Database, *, artifacts: ArtifactStore, uploads: UploadStore, findings_per_file: int
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._uploads = uploads
        self._limits = Limits(max_findings=findings_per_file)

    async def run(self, notifier: Notifier) -> None:
        """Checks for ever."""
        await go_round(self.tick, notifier=notifier, topic=CHECKER)

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
            try:
                checked = [self._check_file(file, version.format) for file in version.files]
            except (SQLAlchemyError, OSError, EspalierError):
                # The disk is full, the store is away: not the dataset's fault, so it is tried again.
                _log.exception("dataset version could not be checked, trying again", version_id=version_id)
                return False
            self._settle(version_id, checked)
            return True

    def _check_file(self, file: DatasetFile, asked_format: str) -> CheckedFile:
        checked = CheckedFile()
        if not self._take_over(file, checked):
            return checked
        with tempfile.TemporaryDirectory(prefix="espalier-check-") as scratch:
            # The suffix says whether the rows of a text file are JSON lines or paragraphs.
            path = Path(scratch) / ("rows.txt" if file.filename.lower().endswith(".txt") else "rows.jsonl")
            path.symlink_to(self._artifacts.local_path(checked.uri))
            try:
                self._read(path, Format(asked_format) if asked_format else None, checked)
            except DataError as error:
                checked.problem = str(error).replace(path.name, file.filename)
                return checked
            self._prepare(path, checked)
        return checked

    def _take_over(self, file: DatasetFile, checked: CheckedFile) -> bool:
        try:
            blob = self._artifacts.put_stream(self._uploads.chunks(file.upload_id))
        except NotFound:
            checked.problem = f"{file.filename}: its upload is gone; upload it again."
            return False
        checked.uri, checked.sha256, checked.size_bytes = blob.uri, blob.sha256, blob.size
        return True

    def _read(self, path: Path, row_format: Format | None, checked: CheckedFile) -> None:
        warned: set[int] = set()

        def count(finding: Finding) -> None:
            if finding.severity is Severity.WARNING:
                warned.add(finding.line)

        report = check_file(path, row_format, limits=self._limits, control_tokens=_control_tokens(), sink=count)
        checked.row_format = report.row_format
        checked.rows, checked.accepted_rows, checked.rejected_rows = report.read, report.accepted, report.rejected
        checked.warned_rows, checked.findings = len(warned), report.findings

    def _prepare(self, path: Path, checked: CheckedFile) -> None:
        """Rows for training: the file itself where a run can read all of it, else the accepted rows alone."""
        if checked.row_format is None:
            return
        if not checked.rejected_rows and not is_plain_text(path):
            checked.training_uri, checked.training_format = checked.uri, checked.row_format.value
            return
        blob = self._artifacts.put_stream(_accepted_rows(path, checked.row_format))
        checked.training_uri = blob.uri
        checked.training_format = (Format.OPENAI if checked.row_format.has_answers else Format.TEXT).value

    def _settle(self, version_id: str, checked: list[CheckedFile]) -> None:
        with self._database.transaction() as session:
            version = repository.load_unchecked_version(session, version_id, lock=True)
            if version is None:
                return
            for file, result in zip(version.files, checked, strict=True):
                _take_results(file, result)
            _decide(version, checked)
            repository.replace_findings(session, version_id, _findings(version, checked))
            uploads = [file.upload_id for file in version.files]
            _log.info("dataset version checked", version_id=version_id, state=version.state.value)
        for upload_id in uploads:
            # The bytes are ours now; an upload left behind by a crash here costs only disk until it expires.
            with suppress(NotFound):
                self._uploads.delete(upload_id)


def _decide(version: DatasetVersion, checked: list[CheckedFile]) -> None:
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


def _take_results(file: DatasetFile, result: CheckedFile) -> None:
    file.uri, file.training_uri, file.training_format = result.uri, result.training_uri, result.training_format
    if result.uri:
        file.sha256, file.size_bytes = result.sha256, result.size_bytes
    file.rows, file.accepted_rows = result.rows, result.accepted_rows
    file.rejected_rows, file.warned_rows = result.rejected_rows, result.warned_rows


def _findings(version: DatasetVersion, checked: list[CheckedFile]) -> Iterator[DatasetFinding]:
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


def _accepted_rows(path: Path, row_format: Format) -> Iterator[bytes]:
    for row in read_rows(path, row_format):
        if row.example is None:
            continue
        content: dict[str, object] = (
            {"messages": row.example.as_dicts()}
            if isinstance(row.example, Conversation)
            else {"text": row.example.text}
        )
        yield json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _control_tokens() -> set[str]:
    return {token for name in template_names() for token in chat_template(name).special_tokens}
