"""The callback that turns what the trainer saved into a committed checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from espalier_trainer.checkpoints import Manifest, checkpoint_path, commit, retain
from espalier_trainer.collective import barrier, on_first_rank
from espalier_trainer.process import Place
from espalier_trainer.run_file import RunFile

_LIBRARIES = ("torch", "transformers", "peft", "trl", "deepspeed", "accelerate", "tokenizers")


class CommitCallback(TrainerCallback):
    """Waits for every rank's files, then lets rank 0 commit them and drop what retention does not keep."""

    def __init__(self, run: RunFile, place: Place, manifest: Callable[[int], Manifest]) -> None:
        self._run = run
        self._place = place
        self._manifest = manifest
        self.last: Path | None = None
        """The newest checkpoint that this attempt committed."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Commits the checkpoint of this step."""
        manifest = self._manifest(state.global_step)
        barrier()
        written = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self.last = on_first_rank(self._place, lambda: self._commit(written, manifest))

    def _commit(self, written: Path, manifest: Manifest) -> Path:
        target = checkpoint_path(self._run.checkpoints_dir, manifest.step)
        temporary = target.with_name(f"{target.name}.tmp-a{self._run.attempt}")
        written.rename(temporary)
        commit(temporary, target, manifest)
        retain(self._run.checkpoints_dir, self._run.hyperparameters.save_total_limit)
        return target


def describe_run(run: RunFile, *, step: int, tokens: int, data: str) -> Manifest:
    """A manifest without files: what the run is, at a step."""
    return Manifest(
        run_id=run.run_id,
        attempt=run.attempt,
        step=step,
        tokens=tokens,
        world_size=run.resources.world_size,
        zero_stage=run.zero_stage,
        data=data,
        fence=int(os.environ.get("ESPALIER_FENCE") or 0),
        versions={name: version(name) for name in _LIBRARIES},
    )
