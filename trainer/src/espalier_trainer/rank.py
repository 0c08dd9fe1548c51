"""What one rank does, top to bottom: meet the others, tokenizer, data, model, train, measure, export."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import torch
from transformers import set_seed
from transformers.utils import logging

from espalier_trainer import collective
from espalier_trainer.arguments import training_arguments
from espalier_trainer.checkpoints import Manifest, sweep
from espalier_trainer.data import Collator, prepare_data, prepare_tokenizer
from espalier_trainer.errors import ConfigError, Stopped
from espalier_trainer.evaluation import measure
from espalier_trainer.export import export
from espalier_trainer.metrics import MetricsCallback, MetricsFile, TokenFile, TokenMeter
from espalier_trainer.mirror import finish_swanlab, swanlab_callbacks
from espalier_trainer.models import load_model, locate
from espalier_trainer.process import Place
from espalier_trainer.resuming import checked_checkpoint
from espalier_trainer.run_file import RunFile
from espalier_trainer.saving import CommitCallback, describe_run
from espalier_trainer.stopping import AllStepsDone, StopCallback
from espalier_trainer.trainers import build_trainer


def train(run: RunFile, place: Place, attempt_dir: Path) -> None:
    """Trains the run to its end. Raises Stopped when asked to stop, another TrainerError when it cannot go on."""
    _use_device(run, place)
    collective.join(run, place)
    arguments = training_arguments(run)  # before the model: ZeRO-3 must be known when weights are loaded
    set_seed(run.hyperparameters.seed)
    collective.on_first_rank(place, lambda: sweep(run.checkpoints_dir))

    base = locate(run)
    tokenizer, template = prepare_tokenizer(run, place, base)
    data = prepare_data(run, place, tokenizer, template)
    resumed = checked_checkpoint(run, data.fingerprint)
    model = load_model(run, base, tokenizer, template)

    collator = Collator(pad_id=tokenizer.pad_id)
    counted = TokenFile(attempt_dir / "counts" / f"rank-{place.rank}")
    meter = TokenMeter(before=resumed.tokens if resumed else 0, file=counted)
    measured = partial(measure, model, data.validation, collator, batch_size=run.eval_batch_size, place=place)

    def manifest(step: int) -> Manifest:
        return describe_run(run, step=step, tokens=meter.total(), data=data.fingerprint)

    stopping = StopCallback(attempt_dir / "stop", place)
    saving = CommitCallback(run, place, manifest)
    metrics = MetricsFile(attempt_dir / "metrics.jsonl") if place.is_first else None
    watching = MetricsCallback(run, metrics, meter=meter, place=place, measure=measured)
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
    finish_swanlab(mirror)
    if stopping.request:
        raise Stopped(step, saved=saving.last if stopping.is_save else None)

    final = measured()
    export(run, trainer, place=place, base=base, tokenizer=tokenizer, manifest=manifest(step))
    if metrics:
        metrics.finish(trainer.state, final)
    collective.on_first_rank(place, lambda: sweep(run.checkpoints_dir))


def _use_device(run: RunFile, place: Place) -> None:
    if run.resources.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("resources.device is cuda, but this process sees no such device; choose cpu")
    torch.set_num_threads(run.resources.threads_per_process)
    if run.resources.device == "cuda":
        torch.cuda.set_device(place.local_rank)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
