"""The demo's files and the dataset versions made of them; a version whose files are equal already is used again."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_client.api import Api
from espalier_client.commands.datasets import Files, create_version, refuse_if_rejected
from espalier_client.demo.corpus import corpus_rows, question_answer_rows

CORPUS = "python-docs-corpus"
QUESTIONS = "python-docs-questions"
HELDOUT = "heldout"
SEEN = "seen"
# Every n-th question that was trained on is measured as "seen": as many as are held out, or nearly.
SEEN_EVERY = 12


@dataclass(frozen=True)
class DemoData:
    """The two dataset versions, and the questions with their answers that the models are asked."""

    corpus: dict[str, Any]
    questions: dict[str, Any]
    heldout: list[dict[str, str]]
    seen: list[dict[str, str]]


def prepare(api: Api, directory: Path) -> DemoData:
    """Writes the files out of the running interpreter's documentation and makes them dataset versions."""
    directory.mkdir(parents=True, exist_ok=True)
    trained = list(question_answer_rows("train"))
    heldout = list(question_answer_rows("validation"))
    seen = trained[::SEEN_EVERY]
    corpus_files = [
        ("train", "", _write(directory / "corpus-train.jsonl", corpus_rows("train"))),
        ("validation", HELDOUT, _write(directory / "corpus-heldout.jsonl", corpus_rows("validation"))),
    ]
    question_files = [
        ("train", "", _write(directory / "questions-train.jsonl", trained)),
        ("validation", HELDOUT, _write(directory / "questions-heldout.jsonl", heldout)),
        ("validation", SEEN, _write(directory / "questions-seen.jsonl", seen)),
    ]
    about = "The Python standard library's own documentation, as the running interpreter carries it"
    return DemoData(
        corpus=_version(api, CORPUS, corpus_files, row_format="text", description=f"{about}: plain text."),
        questions=_version(
            api, QUESTIONS, question_files, row_format="alpaca", description=f"{about}: questions and answers."
        ),
        heldout=heldout,
        seen=seen,
    )


def rows_of(version: dict[str, Any]) -> int:
    """Accepted rows of a version, all files together."""
    return sum(int(file["accepted_rows"]) for file in version["files"])


def _write(path: Path, rows: Iterable[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    return path


def _version(api: Api, name: str, files: Files, *, row_format: str, description: str) -> dict[str, Any]:
    version = _equal_version(api, name, files) or create_version(
        api, name, files, row_format=row_format, description=description
    )
    refuse_if_rejected(api, version)
    return version


def _equal_version(api: Api, name: str, files: Files) -> dict[str, Any] | None:
    """The newest version of the dataset when its files have the same bytes, splits and names."""
    for dataset in api.all("/api/v1/training/datasets", "datasets", name=name):
        for version in api.all(f"/api/v1/training/datasets/{dataset['id']}/versions", "versions", limit=1):
            kept = sorted((file["split"], file["name"], file["sha256"]) for file in version["files"])
            ours = sorted((split, label or split, _sha256(path)) for split, label, path in files)
            if kept == ours and version["state"] == "DATASET_VERSION_STATE_READY":
                return dict(version)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
