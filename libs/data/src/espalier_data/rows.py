"""Rows of a dataset file, one after another: each is an example, or the finding that says why it is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espalier_data.errors import UnknownFormat
from espalier_data.examples import Example, Text
from espalier_data.findings import Finding, Flaw, Reason, describe
from espalier_data.formats import Format, convert, recognise, warnings
from espalier_data.lines import MAX_LINE_BYTES, Line, read_lines
from espalier_data.strict_json import parse

_SAMPLED_LINES = 50
_MAX_PARAGRAPH_BYTES = 1 << 20

_CONTAINERS = {
    b"\x1f\x8b": "gzip data; unpack it first",
    b"PK\x03\x04": "a ZIP archive; unpack it first",
    b"PAR1": "a Parquet file; export it as JSONL",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `example` is None exactly when one of the findings is an error."""

    line: int
    """Number of the row's (first) line in the file, from 1."""
    example: Example | None
    findings: tuple[Finding, ...] = ()


def detect_format(path: Path) -> Format:
    """The format that most of the first rows have; files that hold no JSON at all are plain text.

    Raises UnknownFormat when the rows are JSON with the keys of no format, UnreadableFile when the file cannot be read.
    """
    votes: Counter[Format | None] = Counter()
    keys = "no keys"
    for line in _first_lines(path):
        try:
            row = parse(line.content or b"")
        except Flaw:
            continue
        votes[recognise(row)] += 1
        keys = describe(row)
    if found := max((name for name in votes if name), key=lambda name: votes[name], default=None):
        return found
    if not votes and is_plain_text(path):
        return Format.TEXT
    raise UnknownFormat(
        f"{path.name}: no row format fits; expected rows with `messages` (openai), `conversations` (sharegpt), "
        f"`instruction` and `output` (alpaca) or `text`, found {keys}"
    )


def read_rows(path: Path, row_format: Format, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Row]:
    """Yields every row of the file in order; blank lines are no rows. Memory is bounded by the longest line.

    Raises UnreadableFile when the file cannot be read.
    """
    lines = read_lines(path, max_bytes=max_line_bytes)
    if row_format is Format.TEXT and is_plain_text(path):
        yield from _paragraphs(lines)
        return
    for line in lines:
        if line.is_blank:
            continue
        yield _row(line, row_format, max_line_bytes)
        if line.number == 1 and _container(line):
            return


def is_plain_text(path: Path) -> bool:
    """A `text` file whose rows are paragraphs and not JSON objects."""
    return path.suffix == ".txt" or not _looks_like_json(path)


def _row(line: Line, row_format: Format, max_line_bytes: int) -> Row:
    try:
        example = convert(_parsed(line, max_line_bytes), row_format)
    except Flaw as flaw:
        return Row(line=line.number, example=None, findings=(flaw.at(line.number),))
    remarks = tuple(flaw.at(line.number) for flaw in warnings(example))
    return Row(line=line.number, example=example, findings=remarks)


def _parsed(line: Line, max_line_bytes: int) -> object:
    content = line.content
    if content is None:
        raise Flaw("", Reason.LINE_TOO_LONG, f"at most {max_line_bytes} bytes", f"{line.size} bytes")
    if container := line.number == 1 and _container(line):
        raise Flaw("", Reason.NOT_TEXT, "UTF-8 text", container)
    if line.number == 1 and content.lstrip().startswith(b"["):
        raise Flaw("", Reason.JSON_ARRAY, "one JSON object a line (JSONL)", "the start of a JSON array")
    return parse(content)


def _container(line: Line) -> str | None:
    content = line.content or b""
    return next((name for magic, name in _CONTAINERS.items() if content.startswith(magic)), None)


def _paragraphs(lines: Iterator[Line]) -> Iterator[Row]:
    block: list[bytes] = []
    start = size = 0
    for line in lines:
        if block and (line.is_blank or line.content is None or size > _MAX_PARAGRAPH_BYTES):
            yield _paragraph(block, start)
            block, size = [], 0
        if line.content is None:
            found = f"{line.size} bytes"
            flaw = Flaw("", Reason.LINE_TOO_LONG, f"at most {MAX_LINE_BYTES} bytes", found)
            yield Row(line=line.number, example=None, findings=(flaw.at(line.number),))
        elif not line.is_blank:
            start = start if block else line.number
            block.append(line.content)
            size += line.size
    if block:
        yield _paragraph(block, start)


def _paragraph(block: list[bytes], start: int) -> Row:
    content = b"\n".join(block)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = start + content.count(b"\n", 0, error.start)
        flaw = Flaw("", Reason.NOT_UTF8, "UTF-8 text", f"the byte 0x{content[error.start]:02x}")
        return Row(line=start, example=None, findings=(flaw.at(line),))
    if "\0" in text:
        line = start + text.count("\n", 0, text.index("\0"))
        flaw = Flaw("", Reason.NUL_CHARACTER, "text without NUL", "NUL")
        return Row(line=start, example=None, findings=(flaw.at(line),))
    return Row(line=start, example=Text(text))


def _first_lines(path: Path) -> Iterator[Line]:
    taken = 0
    for line in read_lines(path):
        if line.content is not None and not line.is_blank:
            yield line
            taken += 1
        if taken == _SAMPLED_LINES:
            return


def _looks_like_json(path: Path) -> bool:
    first = next(_first_lines(path), None)
    return first is not None and (first.content or b"").lstrip()[:1] in (b"{", b"[")
