"""Every broken row is told with its place, no input crashes the check, and totals add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espalier_data import Format, Limits, Reason, Severity, UnknownFormat, check_file, detect_format
from espalier_data.findings import Finding

GOOD = {
    Format.ALPACA: {"instruction": "Say hi", "input": "", "output": "hi"},
    Format.SHAREGPT: {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]},
    Format.OPENAI: {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
    Format.TEXT: {"text": "Once upon a time"},
}
OPENAI = json.dumps(GOOD[Format.OPENAI])

BROKEN_LINES = [
    (b'{"messages": [', Reason.NOT_JSON, ""),
    (b'"just a string"', Reason.NOT_AN_OBJECT, ""),
    (b'{"messages": NaN}', Reason.NOT_FINITE, ""),
    (b'{"messages": 1e999}', Reason.NOT_FINITE, ""),
    (b'{"messages": -Infinity}', Reason.NOT_FINITE, ""),
    (b'{"messages": ' + b"9" * 5000 + b"}", Reason.NUMBER_TOO_LONG, ""),
    (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.TOO_DEEP, ""),
    (b'{"a": 1, "a": 2}', Reason.DUPLICATE_KEY, ""),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', Reason.LONE_SURROGATE, "/messages/0/content"),
    (b'{"messages": [{"role": "user", "content": "a\\u0000b"}]}', Reason.NUL_CHARACTER, "/messages/0/content"),
    (b'{"messages": "\xff\xfe"}', Reason.NOT_UTF8, ""),
    (b'{"conversations": []}', Reason.MISSING_FIELD, "/messages"),
    (b'{"messages": {}}', Reason.WRONG_TYPE, "/messages"),
    (b'{"messages": []}', Reason.NO_MESSAGES, "/messages"),
    (b'{"messages": [7]}', Reason.WRONG_TYPE, "/messages/0"),
    (b'{"messages": [{"content": "hi"}]}', Reason.MISSING_FIELD, "/messages/0/role"),
    (b'{"messages": [{"role": "robot", "content": "hi"}]}', Reason.UNKNOWN_ROLE, "/messages/0/role"),
    (b'{"messages": [{"role": "user", "content": 7}]}', Reason.WRONG_TYPE, "/messages/0/content"),
    (b'{"messages": [{"role": "user", "content": "hi"}]}', Reason.NO_ASSISTANT_TURN, "/messages"),
    (b'{"messages": [{"role": "assistant", "content": "hi"}]}', Reason.ROLE_ORDER, "/messages"),
    (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        Reason.UNSUPPORTED_CONTENT,
        "/messages/0/content/0",
    ),
]


@pytest.mark.parametrize(("line", "reason", "place"), BROKEN_LINES, ids=lambda value: str(value)[:30])
def test_a_broken_row_is_told_with_line_pointer_and_reason(
    tmp_path: Path, line: bytes, reason: Reason, place: str
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(OPENAI.encode() + b"\n\n" + line + b"\r\n" + OPENAI.replace("yo", "ya").encode())
    report = check_file(path)
    assert (report.read, report.accepted, report.rejected) == (3, 2, 1)
    [finding] = report.findings
    assert (finding.line, finding.reason, finding.pointer, finding.severity) == (3, reason, place, Severity.ERROR)
    assert finding.expected
    assert len(finding.found) < 200


@pytest.mark.parametrize("row_format", list(Format))
def test_each_format_is_recognised_and_accepted(tmp_path: Path, row_format: Format) -> None:
    path = tmp_path / "data"
    path.write_text(json.dumps(GOOD[row_format]) + "\n")
    report = check_file(path)
    assert (report.row_format, report.accepted, report.rejected, report.findings) == (row_format, 1, 0, [])


def test_the_field_of_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"instruction": "x", "output": 3}\n{"output": "x"}\n{"instruction": "a", "history": [["q"]], "output": ""}'
    )
    findings = [(f.line, f.pointer, f.reason) for f in check_file(path, Format.ALPACA).findings]
    assert findings == [
        (1, "/output", Reason.WRONG_TYPE),
        (2, "/instruction", Reason.MISSING_FIELD),
        (3, "/history/0", Reason.WRONG_TYPE),
    ]


def test_plain_text_has_paragraphs_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfOne\ntwo\n\n\nthree \xff\n\nfour")
    report = check_file(path)
    assert (report.row_format, report.read, report.accepted) == (Format.TEXT, 3, 2)
    assert [(f.line, f.reason) for f in report.findings] == [(5, Reason.NOT_UTF8)]


def test_a_huge_line_is_a_finding_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(OPENAI.encode() + b'\n{"messages": "' + b"x" * 100_000 + b'"}\n' + OPENAI.encode() + b"\n")
    report = check_file(path, limits=Limits(max_line_bytes=10_000))
    assert (report.read, report.accepted, report.rejected) == (3, 2, 1)
    assert (report.findings[0].line, report.findings[0].reason) == (2, Reason.LINE_TOO_LONG)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" + OPENAI.encode() + b"]", Reason.JSON_ARRAY),
        (b"\x1f\x8b\x08\x00rest", Reason.NOT_TEXT),
        (b"PAR1....", Reason.NOT_TEXT),
        (OPENAI.encode("utf-16"), Reason.NOT_TEXT),
    ],
)
def test_a_file_of_another_kind_is_one_finding(tmp_path: Path, content: bytes, reason: Reason) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    assert [f.reason for f in check_file(path, Format.OPENAI).findings] == [reason]


def test_a_bom_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + OPENAI.encode())
    assert check_file(path).accepted == 1


def test_odd_rows_pass_with_a_warning(tmp_path: Path) -> None:
    rows = [
        GOOD[Format.OPENAI],
        GOOD[Format.OPENAI],
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " "}]},
        {"messages": [*GOOD[Format.OPENAI]["messages"], {"role": "user", "content": "x" * 50 + "<|im_end|>"}]},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    report = check_file(path, limits=Limits(max_characters=40), control_tokens=("<|im_end|>",))
    assert (report.accepted, report.rejected, report.warnings) == (4, 0, 5)
    assert [(f.line, f.reason) for f in report.findings] == [
        (2, Reason.DUPLICATE),
        (3, Reason.EMPTY),
        (4, Reason.TRAILING_PROMPT),
        (4, Reason.TOO_LONG),
        (4, Reason.CONTROL_TOKEN),
    ]


def test_findings_beyond_the_limit_reach_the_sink_and_the_counts(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("{}\n" * 30)
    seen: list[Finding] = []
    report = check_file(path, Format.TEXT, limits=Limits(max_findings=3), sink=seen.append)
    assert (len(report.findings), report.truncated, len(seen), report.reasons[Reason.MISSING_FIELD]) == (
        3,
        True,
        30,
        30,
    )


def test_rows_of_no_known_format_are_refused_with_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "x", "answer": "y"}\n')
    with pytest.raises(UnknownFormat, match="'question', 'answer'"):
        detect_format(path)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"")
    assert check_file(path, Format.OPENAI).read == 0
