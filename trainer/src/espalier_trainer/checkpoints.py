"""Checkpoints that count only once they are whole.

A directory is written under a temporary name; then its manifest (size and SHA-256 of every file, the shape of the run)
is written, everything is flushed to disk, and the directory is renamed. Whoever reads verifies the manifest first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espalier_trainer.errors import CheckpointError

MANIFEST = "MANIFEST.json"
_PREFIX = "step-"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and hexadecimal SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint, or a final model, is made of and came from."""

    run_id: str
    attempt: int
    step: int
    tokens: int
    """Tokens trained on so far, over all ranks, padding not counted."""
    world_size: int
    zero_stage: int | None
    """None without DeepSpeed."""
    data: str
    """Fingerprint of the tokenised training data; the data position means nothing on other data."""
    fence: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    """By path inside the directory."""


def checkpoint_path(checkpoints: Path, step: int) -> Path:
    """Where the committed checkpoint of a step is."""
    return checkpoints / f"{_PREFIX}{step}"


def commit(source: Path, target: Path, manifest: Manifest) -> Manifest:
    """Makes a written directory count: hashes, manifest, flush, rename to target, which is replaced when there."""
    files = {str(path.relative_to(source)): _entry(path) for path in _files(source)}
    complete = Manifest(**{**_shallow(manifest), "files": files})
    text = json.dumps(asdict(complete), indent=2, sort_keys=True) + "\n"
    (source / MANIFEST).write_text(text, encoding="utf-8")
    for path in (source / MANIFEST, *(source / name for name in files)):
        _flush(path)
    for directory in {path.parent for path in _files(source)}:
        _flush(directory)
    if target.exists():
        remove(target)
    source.rename(target)
    _flush(target.parent)
    return complete


def verify(directory: Path) -> Manifest:
    """The manifest, once every file has its size and hash. Raises CheckpointError that names what is wrong."""
    manifest = read_manifest(directory)
    for name, entry in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint {directory} is damaged: {name} is missing")
        if path.stat().st_size != entry.size or _sha256(path) != entry.sha256:
            raise CheckpointError(f"the checkpoint {directory} is damaged: {name} is not what the manifest says")
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest without looking at the files. Raises CheckpointError when there is none that can be read."""
    try:
        content: dict[str, Any] = json.loads((directory / MANIFEST).read_text("utf-8"))
        files = {str(name): FileEntry(**entry) for name, entry in content["files"].items()}
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise CheckpointError(f"the checkpoint {directory} is not usable: its manifest points outside of it")
        return Manifest(**{**content, "files": files})
    except FileNotFoundError:
        raise CheckpointError(f"{directory} is no complete checkpoint: it has no {MANIFEST}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint {directory} is damaged: its manifest cannot be read ({error})"
        ) from error


def committed(checkpoints: Path) -> list[Path]:
    """Committed checkpoints, oldest step first; their manifests are not verified here."""
    found = [path for path in checkpoints.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    whole = [path for path in found if (path / MANIFEST).is_file()]
    return sorted(whole, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose manifest verifies."""
    for path in reversed(committed(checkpoints)):
        try:
            verify(path)
        except CheckpointError:
            continue
        return path
    return None


def retain(checkpoints: Path, limit: int | None) -> None:
    """Removes all but the newest `limit` checkpoints; None keeps all."""
    if limit is not None:
        for path in committed(checkpoints)[:-limit]:
            remove(path)


def remove(directory: Path) -> None:
    """Removes a committed directory: the manifest first, so that a half-removed one never counts."""
    (directory / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(directory)


def sweep(checkpoints: Path) -> None:
    """Removes what a crashed attempt left half-written."""
    for path in (*checkpoints.glob(f"{_PREFIX}*.tmp-a*"), *checkpoints.glob("saving-a*")):
        shutil.rmtree(path, ignore_errors=True)


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != MANIFEST)


def _shallow(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}


def _entry(path: Path) -> FileEntry:
    return FileEntry(size=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
