"""The report on a dataset file: totals that add up, and a finding with its place for every row that is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from espalier_data.examples import Conversation, Example, Text
from espalier_data.findings import Finding, Reason, Severity
from espalier_data.formats import Format
from espalier_data.lines import MAX_LINE_BYTES
from espalier_data.rows import Row, detect_format, read_rows

MAX_REMEMBERED_ROWS = 2_000_000
"""Duplicates are looked for among that many rows (about 130 MB of hashes); later rows are not remembered."""


@dataclass(slots=True)
class Report:
    """What a check of a whole file found. `read == accepted + rejected` always holds."""

    row_format: Format
    read: int = 0
    accepted: int = 0
    rejected: int = 0
    warnings: int = 0
    """Number of warnings; their rows are accepted."""
    characters: int = 0
    """Characters of all accepted rows, without markup."""
    messages: int = 0
    """Messages of all accepted conversations."""
    reasons: Counter[Reason] = field(default_factory=Counter)
    """How often each reason was found, whether kept in `findings` or not."""
    findings: list[Finding] = field(default_factory=list)
    """The first findings, errors and warnings in file order, up to the limit given to the check."""
    truncated: bool = False
    """There were more findings than `findings` holds; a sink given to the check gets them all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a check calls too long, and how much of the findings it keeps."""

    max_line_bytes: int = MAX_LINE_BYTES
    max_characters: int = 200_000
    """A longer example is a warning: it will be cut at `cutoff_len` tokens."""
    max_findings: int = 1000


def check_file(
    path: Path,
    row_format: Format | None = None,
    *,
    limits: Limits | None = None,
    control_tokens: Iterable[str] = (),
    sink: Callable[[Finding], None] | None = None,
) -> Report:
    """Checks every row of the file in one pass with bounded memory.

    row_format: None = recognise it. control_tokens: special tokens of the chat template; a row whose text holds one
    gets a warning, because it would be read as markup. sink: gets every finding, also those that the report drops.
    Raises UnknownFormat when no format is given and none fits, UnreadableFile when the file cannot be read.
    """
    limits = limits or Limits()
    report = Report(row_format=row_format or detect_format(path))
    seen: dict[int, int] = {}
    markup = tuple(control_tokens)
    for row in read_rows(path, report.row_format, max_line_bytes=limits.max_line_bytes):
        remarks = list(row.findings)
        if row.example is not None:
            remarks += _remarks_on(row.example, row.line, limits=limits, seen=seen, markup=markup)
        _count(report, row)
        _keep(report, remarks, limits=limits, sink=sink)
    return report


def _count(report: Report, row: Row) -> None:
    report.read += 1
    if row.example is None:
        report.rejected += 1
        return
    report.accepted += 1
    report.characters += row.example.characters
    if isinstance(row.example, Conversation):
        report.messages += len(row.example.messages)


def _keep(report: Report, remarks: list[Finding], *, limits: Limits, sink: Callable[[Finding], None] | None) -> None:
    for remark in remarks:
        report.reasons[remark.reason] += 1
        report.warnings += remark.severity is Severity.WARNING
        if sink:
            sink(remark)
        if len(report.findings) < limits.max_findings:
            report.findings.append(remark)
        else:
            report.truncated = True


def _remarks_on(
    example: Example, line: int, *, limits: Limits, seen: dict[int, int], markup: tuple[str, ...]
) -> list[Finding]:
    remarks: list[Finding] = []

    def warn(reason: Reason, expected: str, found: str) -> None:
        remarks.append(Finding(line, "", reason, expected, found, Severity.WARNING))

    if example.characters > limits.max_characters:
        warn(Reason.TOO_LONG, f"at most {limits.max_characters} characters", f"{example.characters}")
    key = _fingerprint(example)
    if key in seen:
        warn(Reason.DUPLICATE, "a row that is not there yet", f"the same as line {seen[key]}")
    elif len(seen) < MAX_REMEMBERED_ROWS:
        seen[key] = line
    text = example.text if isinstance(example, Text) else "\n".join(message.content for message in example.messages)
    if token := next((token for token in markup if token in text), None):
        warn(Reason.CONTROL_TOKEN, "text without the template's control tokens", token)
    return remarks


def _fingerprint(example: Example) -> int:
    digest = hashlib.blake2b(repr(example).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
