"""Checkpoints as the orchestrator hears of them: each once, as soon as its manifest is in place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from espalier.training_orchestrator.v1.run_pb2 import Checkpoint
from espalier_trainer.checkpoints import MANIFEST, committed

_MAX_REPORTED = 1000


class CheckpointWatch:
    """Finds complete checkpoints and remembers which of them the orchestrator has acknowledged."""

    def __init__(self, checkpoints: Path, attempt: int) -> None:
        self._directory = checkpoints
        self._attempt = attempt
        self._acknowledged: set[str] = set()
        self._described: dict[str, Checkpoint] = {}

    @property
    def newest(self) -> Path | None:
        """Directory of the newest complete checkpoint of the run."""
        found = committed(self._directory)
        return found[-1] if found else None

    @property
    def newest_step(self) -> int:
        """Step of the newest complete checkpoint; 0 when there is none."""
        return _step_of(self.newest) if self.newest else 0

    def unacknowledged(self) -> list[Checkpoint]:
        """Complete checkpoints that the orchestrator may not know."""
        found = []
        for path in committed(self._directory):
            described = self._describe(path)
            if described is not None and described.manifest_sha256 not in self._acknowledged:
                found.append(described)
        return found[-_MAX_REPORTED:]

    def acknowledge(self, checkpoints: list[Checkpoint]) -> None:
        """The orchestrator has taken note of these."""
        self._acknowledged.update(checkpoint.manifest_sha256 for checkpoint in checkpoints)

    def _describe(self, path: Path) -> Checkpoint | None:
        if path.name in self._described:
            return self._described[path.name]
        try:
            manifest = (path / MANIFEST).read_bytes()
            written = (path / MANIFEST).stat().st_mtime
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            attempt = json.loads(manifest).get("attempt")
        except (OSError, ValueError, AttributeError):  # being removed at this moment
            return None
        described = Checkpoint(
            step=_step_of(path),
            attempt=attempt if isinstance(attempt, int) else self._attempt,
            uri=path.as_uri(),
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
            size_bytes=size,
        )
        described.create_time.FromNanoseconds(int(written * 1e9))
        self._described[path.name] = described
        return described


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
