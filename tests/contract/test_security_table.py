"""docs/security.md lists every requirement that it measures itself by, and names no test that does not exist."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "S": "tests/security",
    "E": "tests/e2e",
    "K": "tests/contract",
    "W": "tests/console",
    "A": "services/auth/tests",
    "C": "libs/common/tests",
    "G": "gateway/tests",
    "L": "libs/client/tests",
    "O": "services/training-orchestrator/tests",
    "T": "trainer/tests",
}
# OWASP ASVS 5.0.0, levels 1 and 2. A section's requirements are numbered through; the last ones are of level 3.
LEVEL_TWO = """
6.1.1-3 6.2.1-12 6.3.1-4 6.4.1-4 6.5.1-5 6.6.1-3 6.8.1-4
7.1.1-3 7.2.1-4 7.3.1-2 7.4.1-5 7.5.1-2 7.6.1-2
8.1.1-2 8.2.1-3 8.3.1-1 8.4.1-1
9.1.1-3 9.2.1-4
10.1.1-2 10.2.1-2 10.3.1-4 10.4.1-11 10.5.1-5 10.6.1-2 10.7.1-3
11.1.1-2 11.2.1-3 11.3.1-3 11.4.1-4 11.5.1-1 11.6.1-1
13.2.1-3 13.3.1-2 13.4.1-5
14.1.1-2 14.2.1-4 14.3.1-3
16.1.1-1 16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3
"""
CHAPTERS = {6, 7, 8, 9, 10, 11, 13, 14, 16}
NUMBER = r"\d+\.\d+\.\d+"
Row = tuple[str, str, str]


def test_every_requirement_of_level_two_stands_in_the_table_once() -> None:
    listed = Counter(number for row in _rows() for number in _numbers(row[0]))
    wanted = {number for entry in LEVEL_TWO.split() for number in _run(*re.split("[-]", entry))}
    assert [number for number, times in listed.items() if times > 1] == []
    assert sorted(wanted - listed.keys(), key=_order) == []
    # What stands beside is of level 3 and says so, or of the chapters that are not listed whole.
    extra = {number for number in listed.keys() - wanted if _order(number)[0] in CHAPTERS}
    marked = {number for row in _rows() if "(L3)" in row[0] for number in _numbers(row[0])}
    assert extra == marked


def test_every_row_names_its_tests_or_says_why_there_is_none() -> None:
    silent = [
        row[0]
        for row in _rows()
        if not _tests(row[2]) and not re.match(r"(?:not yet|does not apply)\b[^:]*: \S|not yet\b.+: \S", row[2])
    ]
    assert silent == []
    # A reason stands behind each "not yet", before it or after.
    assert [row[0] for row in _rows() if re.search(r"not yet\s*$", row[2])] == []


def test_every_test_that_the_page_names_exists() -> None:
    named = {found for row in _rows() for found in _tests(row[2])}
    assert len(named) > 120
    missing = []
    for folder, file, test in sorted(named):
        path = ROOT / FOLDERS[folder] / file
        if not path.is_file() or test not in _functions(path):
            missing.append(f"{folder}/{file}::{test}")
    assert missing == []


def test_nothing_that_looks_like_a_test_is_named_in_another_way() -> None:
    page = _page()
    assert page.count("::test_") == len(re.findall(r"\b[A-Z]/[\w/]+\.py::test_\w+", page))


def _rows() -> Iterator[Row]:
    """The rows of the tables whose third column says what shows it."""
    for table in re.findall(r"^\| Clause \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", _page(), re.MULTILINE):
        for line in table.splitlines():
            first, second, third = (cell.strip() for cell in line[1:-1].split("|"))
            yield first, second, third


def _page() -> str:
    return (ROOT / "docs" / "security.md").read_text("utf-8")


def _tests(cell: str) -> list[tuple[str, str, str]]:
    return [(found[0], found[1], found[2]) for found in re.findall(r"\b([A-Z])/([\w/]+\.py)::(test_\w+)", cell)]


def _numbers(cell: str) -> Iterator[str]:
    """The requirements at the head of a row: "6.1.2, 6.2.11 words …" or "6.5.1 to 6.5.5 codes"."""
    head = re.match(rf"(?:{NUMBER}(?:, | to | |$))*", cell)
    for first, last in re.findall(rf"({NUMBER})(?: to ({NUMBER}))?", head[0] if head else ""):
        yield from _run(first, last.rpartition(".")[2]) if last else (first,)


def _run(first: str, last: str) -> Iterator[str]:
    section, _, start = first.rpartition(".")
    return (f"{section}.{number}" for number in range(int(start), int(last) + 1))


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))


@cache
def _functions(path: Path) -> frozenset[str]:
    """Names of the tests of a file, read from its syntax: nothing is imported."""
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
