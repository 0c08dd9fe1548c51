"""The trainer of each stage: transformers' own for pt, trl's for sft, both fed with rows that are tokenised already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import AutoTokenizer, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import SFTTrainer  # type: ignore[attr-defined]

from espalier_trainer.data import Collator, TokenRows
from espalier_trainer.run_file import RunFile


class _Counting:
    """Tells the meter how many tokens each micro-batch really has; the model does not see that number."""

    count: Callable[[int], None]

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        self.count(int(inputs.pop("real_tokens")))
        return super().training_step(model, inputs, *rest, **more)  # type: ignore[misc]


class _PreTrainer(_Counting, Trainer):
    pass


class _FineTuner(_Counting, SFTTrainer):
    pass


def build_trainer(
    run: RunFile,
    model: Any,
    *,
    arguments: TrainingArguments,
    rows: TokenRows,
    collator: Collator,
    count: Callable[[int], None],
    callbacks: list[TrainerCallback],
) -> Any:
    """The trainer of the run's stage."""
    is_pre_training = run.stage == "pt"
    trainer = (_PreTrainer if is_pre_training else _FineTuner)(
        model=model,
        args=arguments,
        train_dataset=rows if is_pre_training else rows.as_dataset(),
        data_collator=collator,
        processing_class=AutoTokenizer.from_pretrained(run.output_dir / "tokenizer", local_files_only=True),
        callbacks=callbacks,
    )
    trainer.count = count
    trainer.remove_callback(PrinterCallback)
    return trainer
