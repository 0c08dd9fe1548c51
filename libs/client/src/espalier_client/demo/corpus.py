"""The demo's data: the Python standard library's own documentation, as the running interpreter carries it.

Real text that nobody wrote for a demo: the language reference (`pydoc_data`), and the docstrings of every public
module, class, function and method. Pure Python modules are parsed; only builtin and extension modules are imported.

A text belongs to the validation split by a hash of its first paragraph, in the corpus and among the questions alike.
So what is held out of the questions was never trained on in the corpus either, and one text under two names never
stands on both sides.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation"]

_VALIDATION_PERCENT = 8
_PASSAGE_CHARACTERS = 1200
_ANSWER_CHARACTERS = range(24, 321)
_SKIPPED = frozenset(
    "test tests idlelib lib2to3 ensurepip turtledemo site-packages dist-packages antigravity this pydoc_data "  # noqa: SIM905
    "ntpath".split()
)
# Modules in C that have no Python file of the same public name.
_EXTENSIONS = tuple(
    "array atexit binascii builtins cmath errno faulthandler fcntl gc grp itertools marshal math mmap posix pwd "  # noqa: SIM905
    "resource select signal sys syslog termios time unicodedata zlib".split()
)
_PUBLIC_NAMES = {"posixpath": "os.path", "posix": "os"}


@dataclass(frozen=True, slots=True)
class Documented:
    """Something of the standard library that has a docstring."""

    name: str
    """Full dotted name, as one would write it."""
    kind: Literal["module", "class", "function"]
    signature: str
    """Parameters in parentheses; empty where there are none to show."""
    text: str
    """The cleaned docstring."""

    @property
    def summary(self) -> str:
        """Its first paragraph on one line."""
        return " ".join(self.text.split("\n\n", 1)[0].split())


def corpus_rows(split: Split) -> Iterator[dict[str, str]]:
    """Rows of plain text for pre-training, in the format `text`."""
    for passage in _passages():
        if split_of(passage) == split:
            yield {"text": passage}
    for item in documented():
        if split_of(item.summary) == split:
            yield {"text": f"{item.name}{item.signature}\n\n{item.text}"}


def question_answer_rows(split: Split) -> Iterator[dict[str, str]]:
    """Rows of questions for fine-tuning, in the format `alpaca`; the answer is the docstring's first paragraph."""
    seen: set[str] = set()
    for item in documented():
        answer = item.summary
        if len(answer) in _ANSWER_CHARACTERS and answer not in seen and split_of(answer) == split:
            seen.add(answer)
            yield {"instruction": _question(item), "output": answer}


def split_of(text: str) -> Split:
    """The split of a text, by a hash of its first paragraph: the same on every machine and in every run."""
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    number = int.from_bytes(hashlib.sha256(paragraph.encode("utf-8", "replace")).digest()[:4], "big")
    return "validation" if number % 100 < _VALIDATION_PERCENT else "train"


@cache
def documented() -> tuple[Documented, ...]:
    """Everything public with a docstring, in a fixed order. Takes some seconds once."""
    return tuple(_documented())


def _documented() -> Iterator[Documented]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        module = _module_name(path.relative_to(root))
        if module:
            yield from _parsed(module, path)
    for name in _EXTENSIONS:
        yield from _inspected(name)


def _question(item: Documented) -> str:
    if item.kind == "module":
        return f"What is the module {item.name} for?"
    return f"What is {item.name}?" if item.kind == "class" else f"What does {item.name} do?"


def _module_name(path: Path) -> str | None:
    parts = path.with_suffix("").parts
    if any(part in _SKIPPED or part.startswith("_") for part in parts[:-1]):
        return None
    if parts[-1] == "__init__":
        parts = parts[:-1]
    if not parts or parts[-1] in _SKIPPED or parts[-1].startswith("_") or "-" in parts[0]:
        return None
    name = ".".join(parts)
    return _PUBLIC_NAMES.get(name, name)


def _parsed(module: str, path: Path) -> Iterator[Documented]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    if text := ast.get_docstring(tree):
        yield Documented(module, "module", "", text)
    yield from _members(module, tree)


def _members(owner: str, node: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        name = f"{owner}.{child.name}"
        text = ast.get_docstring(child)
        if isinstance(child, ast.ClassDef):
            if text:
                yield Documented(name, "class", "", text)
            yield from _members(name, child)
        elif text:
            yield Documented(name, "function", f"({ast.unparse(child.args)})", text)


def _inspected(name: str) -> Iterator[Documented]:
    if name not in sys.stdlib_module_names:
        return
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    public = _PUBLIC_NAMES.get(name, name)
    prefix = "" if name == "builtins" else f"{public}."
    if module.__doc__:
        yield Documented(public, "module", "", inspect.cleandoc(module.__doc__))
    for key in sorted(vars(module)):
        member = vars(module)[key]
        if not key.startswith("_") and getattr(member, "__module__", None) in (name, "builtins"):
            yield from _described(prefix + key, member)


def _described(name: str, member: object) -> Iterator[Documented]:
    text = inspect.getdoc(member) if inspect.isroutine(member) or inspect.isclass(member) else None
    if text:
        kind: Literal["class", "function"] = "class" if inspect.isclass(member) else "function"
        yield Documented(name, kind, _signature(member), text)
    if inspect.isclass(member):
        for key in sorted(vars(member)):
            own = vars(member)[key]
            if not key.startswith("_") and inspect.isroutine(own):
                yield from _described(f"{name}.{key}", own)


def _signature(member: object) -> str:
    try:
        return str(inspect.signature(member))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""


def _passages() -> Iterator[str]:
    """The language reference in passages of whole paragraphs."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(topics):
        passage = ""
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            if passage and len(passage) + len(paragraph) > _PASSAGE_CHARACTERS:
                yield passage
                passage = ""
            passage = f"{passage}\n\n{paragraph}" if passage else paragraph
        if passage.strip():
            yield passage
