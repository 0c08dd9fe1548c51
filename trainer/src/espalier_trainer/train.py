"""One rank: `python -m espalier_trainer.train run.yaml`, started once per rank, or alone.

Reads top to bottom: check, meet the other ranks, tokenizer, data, model, train, measure, export. A failure that people
can mend ends with its sentence as the last line of stderr and exit code 78.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from espalier_trainer.checkpoints import Manifest, sweep, verify
from espalier_trainer.errors import CheckpointError, ConfigError, Stopped, TrainerError
from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.process import Place, prepare
from espalier_trainer.run_file import RunFile, load_run_file


def train(run: RunFile, attempt_dir: Path) -> None:  # noqa: PLR0915 - it reads top to bottom
    """Trains the run to its end. Raises Stopped when asked to stop, another TrainerError when it cannot go on."""
    place = prepare(run)

    # torch is imported only now: prepare has set what it reads at import.
    from transformers import set_seed
    from transformers.utils import logging

    from espalier_trainer import collective
    from espalier_trainer.arguments import training_arguments
    from espalier_trainer.data import Collator, prepare_data, prepare_tokenizer
    from espalier_trainer.evaluation import evaluate
    from espalier_trainer.export import export
    from espalier_trainer.metrics import MetricsCallback, MetricsFile, TokenMeter
    from espalier_trainer.mirror import finish_swanlab, swanlab_callbacks
    from espalier_trainer.models import load_model, locate
    from espalier_trainer.saving import CommitCallback, describe_run
    from espalier_trainer.stopping import AllStepsDone, StopCallback, StopRequest
    from espalier_trainer.trainers import build_trainer

    _check_device(run, place)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    collective.join(run, place)
    arguments = training_arguments(run)  # before the model: ZeRO-3 must be known when weights are loaded
    set_seed(run.hyperparameters.seed)
    collective.on_first_rank(place, lambda: sweep(run.checkpoints_dir))

    base = locate(run)
    tokenizer, template = prepare_tokenizer(run, place, base)
    data = prepare_data(run, place, tokenizer, template)
    resumed = _checked_checkpoint(run, data.fingerprint)
    model = load_model(run, base, tokenizer, template)

    collator = Collator(pad_id=tokenizer.pad_id)
    meter = TokenMeter(before=resumed.tokens if resumed else 0)
    metrics = MetricsFile(attempt_dir / "metrics.jsonl") if place.is_first else None
    batch_size = run.hyperparameters.per_device_eval_batch_size or run.hyperparameters.per_device_train_batch_size

    def measure() -> dict[str, float]:
        values: dict[str, float] = {}
        for label, rows in data.validation.items():
            found = evaluate(trainer.model, rows, collator, batch_size=batch_size, place=place)
            values |= found.values(label)
        return values

    def manifest(step: int) -> Manifest:
        return describe_run(run, step=step, tokens=meter.total(), data=data.fingerprint)

    stopping = StopCallback(attempt_dir / "stop", place)
    saving = CommitCallback(run, place, manifest)
    watching = MetricsCallback(
        metrics,
        meter,
        place=place,
        measure=measure,
        eval_steps=run.hyperparameters.eval_steps,
        eval_before=run.eval_before,
    )
    mirror = swanlab_callbacks(run, place)
    trainer = build_trainer(
        run,
        model,
        arguments=arguments,
        rows=data.train,
        collator=collator,
        count=meter.add,
        callbacks=[stopping, watching, saving, *mirror],
    )

    with contextlib.suppress(AllStepsDone):
        trainer.train(resume_from_checkpoint=str(run.resume_from) if run.resume_from else None)
    step = trainer.state.global_step
    if stopping.request is not StopRequest.NONE:
        finish_swanlab(mirror)
        saved = stopping.request is StopRequest.SAVE
        raise Stopped(f"stopped at step {step}, " + (f"saved {saving.last}" if saved else "nothing saved"), saved=saved)

    final = measure()
    export(run, trainer, place=place, base=base, tokenizer=tokenizer, manifest=manifest(step))
    if metrics:
        metrics.write(
            step=step, values=final, final=True, epoch=trainer.state.epoch, total_steps=trainer.state.max_steps
        )
    finish_swanlab(mirror)
    collective.on_first_rank(place, lambda: sweep(run.checkpoints_dir))


def _check_device(run: RunFile, place: Place) -> None:
    import torch

    if run.resources.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("resources.device is cuda, but this process sees no such device; choose cpu")
    torch.set_num_threads(run.resources.threads_per_process)
    if run.resources.device == "cuda":
        torch.cuda.set_device(place.local_rank)


def _checked_checkpoint(run: RunFile, data: str) -> Manifest | None:
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


def run_rank(path: Path) -> ExitCode:
    """Runs one rank and says how it ended, on stderr for failures."""
    warnings.simplefilter("ignore")  # libraries' advice to their developers would bury what a user must read
    try:
        train(load_run_file(path), path.resolve().parent)
    except Stopped as stop:
        print(stop, flush=True)  # noqa: T201
        return stop.exit_code
    except TrainerError as error:
        return _failed(str(error), error.exit_code)
    except Exception as error:
        traceback.print_exc()
        return _failed(*_explained(error))
    return ExitCode.FINISHED


def _explained(error: Exception) -> tuple[str, ExitCode]:
    # The libraries that write weights tell a full disk in words only.
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return "the disk is full; free some space, or lower save_total_limit", ExitCode.INFRASTRUCTURE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "lower per_device_train_batch_size or cutoff_len, or raise the ZeRO stage"
        return f"out of memory: {hint}", ExitCode.OUT_OF_MEMORY
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}", ExitCode.CRASHED


def _failed(sentence: str, code: ExitCode) -> ExitCode:
    print("error: " + " ".join(sentence.split()), file=sys.stderr, flush=True)  # noqa: T201
    return code


def main(arguments: list[str]) -> Any:
    """Ends the process; a rank must not wait in a destructor for ranks that are gone."""
    if len(arguments) != 1:
        code = _failed("usage: python -m espalier_trainer.train RUN.YAML", ExitCode.USER_ERROR)
    else:
        code = run_rank(Path(arguments[0]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
