"""Checkpoints and models on disk. One counts once its manifest is there, and is trusted once that verifies."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
MAX_TOKENS = 2**53  # no training comes near it, and a number of JSON holds it exactly
_CHUNK = 1 << 20
_MAX_HEADER = 100 << 20  # bytes; the header of a safetensors file is never larger


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a manifest says, as far as it matters here."""

    directory: Path
    run_id: str
    attempt: int
    step: int
    tokens: int
    """Trained on until then, by earlier attempts too; 0 where the manifest does not say."""
    files: dict[str, tuple[int, str]]
    """Path inside the directory → size in bytes and hexadecimal SHA-256."""
    sha256: str
    """Of the manifest itself."""
    written_at: datetime

    @property
    def size_bytes(self) -> int:
        """All its files together."""
        return sum(size for size, _ in self.files.values())


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest, without a look at the files; None when there is none that can be used."""
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
        content: dict[str, Any] = json.loads(raw)
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in content["files"].items()}
        manifest = Manifest(
            directory=directory,
            run_id=str(content["run_id"]),
            attempt=int(content["attempt"]),
            step=int(content["step"]),
            tokens=min(max(0, int(content.get("tokens", 0))), MAX_TOKENS),
            files=files,
            sha256=hashlib.sha256(raw).hexdigest(),
            written_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if all(_is_inside(name) for name in files) else None


def is_whole(manifest: Manifest, *, hashes: bool) -> bool:
    """True when every file is there with its size, and with `hashes` with its content."""
    for name, (size, sha256) in manifest.files.items():
        path = manifest.directory / name
        try:
            if path.stat().st_size != size or (hashes and _sha256(path) != sha256):
                return False
        except OSError:
            return False
    return True


def found_checkpoints(directory: Path) -> list[Manifest]:
    """The committed checkpoints below a run's `checkpoints`, newest first; their content is not looked at."""
    try:
        names = [path for path in directory.iterdir() if path.name.removeprefix("step-").isdigit()]
    except OSError:
        return []
    manifests = [manifest for path in names if (manifest := read_manifest(path)) is not None]
    return sorted(manifests, key=lambda manifest: manifest.step, reverse=True)


def parameters_of(model: Path) -> int:
    """Number of parameters in the safetensors files of a model directory, read from their headers."""
    return sum(sum(_tensor_sizes(path)) for path in model.glob("*.safetensors"))


def _tensor_sizes(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(min(length, _MAX_HEADER)))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield prod(tensor["shape"])


def _is_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
