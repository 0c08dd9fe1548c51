"""Which checkpoints a run may go on from."""

from __future__ import annotations

from espalier_trainer.checkpoints import Manifest, verify
from espalier_trainer.errors import CheckpointError
from espalier_trainer.run_file import RunFile


def checked_checkpoint(run: RunFile, data: str) -> Manifest | None:
    """The verified manifest of the checkpoint to resume from. Raises CheckpointError when it does not fit the run."""
    if run.resume_from is None:
        return None
    manifest = verify(run.resume_from)
    place = f"the checkpoint {run.resume_from.name}"
    if manifest.world_size != run.resources.world_size:
        raise CheckpointError(
            f"{place} was written by {manifest.world_size} ranks and this attempt has {run.resources.world_size}; "
            "resume with as many ranks as before"
        )
    if manifest.zero_stage != run.zero_stage:
        raise CheckpointError(
            f"{place} was written under {_zero(manifest.zero_stage)} and this attempt uses {_zero(run.zero_stage)}; "
            "resume with the same setting"
        )
    if manifest.data != data:
        raise CheckpointError(
            f"{place} was trained on other data, or with another template, cutoff_len or packing; resume with the same"
        )
    return manifest


def _zero(stage: int | None) -> str:
    return "no DeepSpeed" if stage is None else f"ZeRO stage {stage}"
