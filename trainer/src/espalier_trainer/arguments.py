"""What transformers, trl and DeepSpeed are told."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments
from trl import SFTConfig  # type: ignore[attr-defined]

from espalier_trainer.errors import ConfigError
from espalier_trainer.run_file import RunFile


def training_arguments(run: RunFile) -> TrainingArguments:
    """Arguments of the stage's trainer. Raises ConfigError for names that transformers does not know."""
    settings = _settings(run)
    try:
        if run.stage == "pt":
            return TrainingArguments(**settings)
        return SFTConfig(**settings, max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True})
    except ValueError as error:
        raise ConfigError(f"hyperparameters: {str(error).splitlines()[0]}") from error


def _settings(run: RunFile) -> dict[str, Any]:
    chosen = run.hyperparameters
    return {
        "output_dir": str(run.checkpoints_dir / f"saving-a{run.attempt}"),
        "learning_rate": chosen.learning_rate,
        "num_train_epochs": chosen.num_train_epochs,
        "max_steps": chosen.max_steps if chosen.max_steps > 0 else -1,
        "per_device_train_batch_size": chosen.per_device_train_batch_size,
        "gradient_accumulation_steps": chosen.gradient_accumulation_steps,
        "activation_checkpointing": chosen.gradient_checkpointing,
        "lr_scheduler_type": chosen.lr_scheduler_type,
        "warmup_steps": chosen.warmup_steps,
        "weight_decay": chosen.weight_decay,
        "max_grad_norm": chosen.max_grad_norm,
        "seed": chosen.seed,
        "data_seed": chosen.seed,
        "logging_steps": chosen.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        # A stop saves whatever the strategy; the last step is saved too, so that a crash after it costs nothing.
        "save_strategy": "steps",
        "save_steps": chosen.save_steps or 1_000_000_000,
        "save_total_limit": None,  # our own retention counts committed checkpoints
        "eval_strategy": "no",  # our own evaluation weighs every token the same
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
        "remove_unused_columns": False,
        "dataloader_pin_memory": run.resources.device == "cuda",
        "ddp_find_unused_parameters": False,
        "use_cpu": run.resources.device == "cpu",
        "bf16": run.resources.device == "cuda",
        "optim": "adamw_torch",
        "deepspeed": _deepspeed(run) if run.deepspeed.enabled else None,
    }


def _deepspeed(run: RunFile) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": run.deepspeed.zero_stage}
    if run.deepspeed.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
    if run.deepspeed.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    more: dict[str, Any] = {}
    if run.deepspeed.offload == "cpu" and run.resources.device == "cuda":
        # DeepSpeed's own optimizer for host memory; it is compiled at the first start.
        names = ("lr", "betas", "eps", "weight_decay")
        more["optimizer"] = {"type": "AdamW", "params": dict.fromkeys(names, "auto")}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": zero,
        "bf16": {"enabled": run.resources.device == "cuda"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": run.resources.device == "cuda",
        "steps_per_print": 1_000_000_000,
        **more,
    }
