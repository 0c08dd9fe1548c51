"""Reads the rows of one file: what was counted and found in them, and where a run reads the usable ones.

The one module of the service that needs the data library; loaded when the first version is checked.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from espalier_common.artifacts import ArtifactStore, Blob
from espalier_data.errors import DataError
from espalier_data.examples import Conversation
from espalier_data.findings import Finding, Severity
from espalier_data.formats import Format
from espalier_data.report import Limits, check_file
from espalier_data.rows import is_plain_text, read_rows
from espalier_data.templates import chat_template, template_names


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


class Inspector:
    """Checks files that lie in the artifact store."""

    def __init__(self, artifacts: ArtifactStore, *, findings_per_file: int) -> None:
        self._artifacts = artifacts
        self._limits = Limits(max_findings=findings_per_file)

    def inspect(self, blob: Blob, *, filename: str, asked_format: str) -> CheckedFile:
        """What there is to say about the file; a file that is no rows at all has a `problem`."""
        checked = CheckedFile(uri=blob.uri, sha256=blob.sha256, size_bytes=blob.size)
        with tempfile.TemporaryDirectory(prefix="espalier-check-") as scratch:
            # The suffix says whether the rows of a text file are JSON lines or paragraphs.
            path = Path(scratch) / ("rows.txt" if filename.lower().endswith(".txt") else "rows.jsonl")
            path.symlink_to(self._artifacts.local_path(blob.uri))
            try:
                self._read(path, Format(asked_format) if asked_format else None, checked)
            except DataError as error:
                checked.problem = str(error).replace(path.name, filename)
                return checked
            self._prepare(path, checked)
        return checked

    def _read(self, path: Path, row_format: Format | None, checked: CheckedFile) -> None:
        warned: set[int] = set()

        def count(finding: Finding) -> None:
            if finding.severity is Severity.WARNING:
                warned.add(finding.line)

        report = check_file(path, row_format, limits=self._limits, control_tokens=_control_tokens(), sink=count)
        checked.row_format = report.row_format
        checked.rows, checked.accepted_rows, checked.rejected_rows = report.read, report.accepted, report.rejected
        checked.warned_rows, checked.findings = len(warned), report.findings
        if report.accepted and not report.characters:
            checked.problem = (
                f"{checked.rows} rows were read and none of them holds any text; there is nothing to learn."
            )

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
