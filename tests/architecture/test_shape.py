"""Whoever knows one service knows six: the same files, short files, short functions, names that say something."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from workspace import MEMBERS, ROOT, SERVICE_FILES, SERVICES, package, sources

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MAIN_LINES = 400, 60, 60
NAMELESS = {"utils", "util", "helpers", "helper", "misc", "common_utils", "base_service"}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", SERVICE_FILES)
def test_every_service_has_the_same_files(service: str, name: str) -> None:
    home = ROOT / "services" / service / "src" / package(service)
    assert (home / f"{name}.py").is_file() or (home / name / "__init__.py").is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_readme_migrations_and_tests(service: str) -> None:
    home = ROOT / "services" / service
    assert (home / "README.md").is_file()
    assert list((home / "migrations" / "versions").glob("*.py"))
    assert list((home / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("service", SERVICES)
def test_a_composition_root_is_short(service: str) -> None:
    main = ROOT / "services" / service / "src" / package(service) / "__main__.py"
    assert len(main.read_text("utf-8").splitlines()) < MAX_MAIN_LINES


def test_no_file_is_longer_than_400_lines() -> None:
    long = [
        p.relative_to(ROOT).as_posix() for p in sources() if len(p.read_text("utf-8").splitlines()) > MAX_FILE_LINES
    ]
    assert long == []


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources()
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [p for p in sources() if p.stem in NAMELESS] == []


@pytest.mark.parametrize("member", MEMBERS)
def test_versions_are_pinned_in_one_place(member: str) -> None:
    assert [r for r in requirements(member) if "==" in r] == []


def test_constraints_pin_every_dependency_of_every_member() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    names = {canonical(requirement) for member in ("proto", *MEMBERS) for requirement in requirements(member)}
    assert {name for name in names if not name.startswith("espalier-")} - pinned == set()


def requirements(member: str) -> list[str]:
    """All requirements of a member, the optional ones included."""
    project = tomllib.loads((ROOT / member / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project.get("optional-dependencies", {}).values()
    return [*project.get("dependencies", []), *(requirement for group in optional for requirement in group)]


def canonical(requirement: str) -> str:
    """The project's name in a requirement, in the spelling that compares equal."""
    return re.split(r"[;\[<>=!~ ]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")
