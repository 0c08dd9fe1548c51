"""SwanLab as a mirror of the metrics. Never required: when it cannot start, the run goes on without it."""

from __future__ import annotations

from typing import Any

from espalier_trainer.process import Place
from espalier_trainer.run_file import RunFile


def swanlab_callbacks(run: RunFile, place: Place) -> list[Any]:
    """SwanLab's own callback on rank 0 when the run configures it, else nothing."""
    if run.swanlab.mode == "disabled" or not place.is_first:
        return []
    try:
        import swanlab
        from transformers.integrations import SwanLabCallback  # type: ignore[attr-defined]

        directory = run.output_dir / "swanlab"
        directory.mkdir(parents=True, exist_ok=True)
        swanlab.init(
            project=run.swanlab.project,
            experiment_name=f"{run.run_id}-a{run.attempt}",
            mode=run.swanlab.mode,
            logdir=str(directory),
        )
        return [SwanLabCallback()]  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever it is, it is not the training's
        print(f"SwanLab is off: {type(error).__name__}: {error}", flush=True)  # noqa: T201
        return []


def finish_swanlab(callbacks: list[Any]) -> None:
    """Lets SwanLab write what it still holds."""
    if callbacks:
        import swanlab

        swanlab.finish()
