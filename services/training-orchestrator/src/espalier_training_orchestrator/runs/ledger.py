"""Keeps the list of a run's checkpoints true to what lies on disk."""

from collections.abc import Iterable, Set
from pathlib import Path

from sqlalchemy.orm import Session

from espalier_training_orchestrator.runs import repository
from espalier_training_orchestrator.runs.checkpoints import Manifest, found_checkpoints, is_whole, read_manifest
from espalier_training_orchestrator.runs.lifecycle import Lifecycle
from espalier_training_orchestrator.runs.models import Checkpoint, Run
from espalier_training_orchestrator.runs.survey import Places
from espalier_training_orchestrator.storage import Storage


class CheckpointLedger:
    """Adds what was committed, drops what retention removed."""

    def __init__(self, *, places: Places, lifecycle: Lifecycle, storage: Storage) -> None:
        self._places = places
        self._storage = storage
        self._lifecycle = lifecycle

    def whole_on_disk(self, run: Run, *, trusted: Set[str], hashes: bool) -> list[Manifest]:
        """The checkpoints on disk that are whole. `hashes` reads every byte, save of those whose manifests are trusted:
        call it outside of any transaction then. One of an attempt that the run does not know is left out.
        """
        return [
            manifest
            for manifest in found_checkpoints(self._places.checkpoints_dir(run.id))
            if manifest.run_id == run.id
            and manifest.attempt <= run.attempt
            and is_whole(manifest, hashes=hashes and manifest.sha256 not in trusted)
        ]

    def sync(self, session: Session, run: Run, whole: Iterable[Manifest]) -> None:
        """Brings the list to what is whole on disk. The caller holds the lock of the run."""
        known = {checkpoint.step: checkpoint for checkpoint in repository.list_checkpoints(session, run.id)}
        found = {manifest.step: manifest for manifest in whole}
        gone = [checkpoint for step, checkpoint in known.items() if step not in found]
        for checkpoint in gone:
            session.delete(checkpoint)
        new = [
            manifest
            for step, manifest in found.items()
            if step not in known or known[step].manifest_sha256 != manifest.sha256
        ]
        for manifest in new:
            self._take(session, run, manifest=manifest, earlier=known.get(manifest.step))
        session.flush()
        if gone or new:
            self._storage.tell(session, run.owner_id)

    def newest_whole(self, checkpoints: list[Checkpoint]) -> Manifest | None:
        """The newest of these, newest first, of which every byte is as its manifest says."""
        for checkpoint in checkpoints:
            manifest = read_manifest(self.directory_of(checkpoint))
            if manifest and manifest.sha256 == checkpoint.manifest_sha256 and is_whole(manifest, hashes=True):
                return manifest
        return None

    def tokens_saved(self, run_id: str, attempt: int) -> int:
        """Tokens of the run at the newest checkpoint or finished model of this attempt; 0 when it left none."""
        model = read_manifest(self._places.model_dir(run_id))
        left = [*found_checkpoints(self._places.checkpoints_dir(run_id)), *([model] if model else [])]
        return max((one.tokens for one in left if (one.run_id, one.attempt) == (run_id, attempt)), default=0)

    def directory_of(self, checkpoint: Checkpoint) -> Path:
        """Where the checkpoint lies."""
        return self._places.checkpoints_dir(checkpoint.run_id) / f"step-{checkpoint.step}"

    def _take(self, session: Session, run: Run, *, manifest: Manifest, earlier: Checkpoint | None) -> None:
        checkpoint = earlier or Checkpoint(run_id=run.id, step=manifest.step)
        checkpoint.attempt = manifest.attempt
        checkpoint.uri = f"runs/{run.id}/checkpoints/step-{manifest.step}"
        checkpoint.manifest_sha256 = manifest.sha256
        checkpoint.size_bytes = manifest.size_bytes
        checkpoint.created_at = manifest.written_at
        session.add(checkpoint)
        self._lifecycle.note(
            session, run, reason="CHECKPOINT_SAVED", message=f"The checkpoint of step {manifest.step} is complete."
        )
