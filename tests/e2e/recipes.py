"""Runs of seconds."""

from typing import Any


def pretraining(corpus: str, **hyperparameters: Any) -> dict[str, Any]:
    """A run of seconds: a tiny Llama from scratch on one rank."""
    return {
        "stage": "STAGE_PT",
        "finetuning_type": "FINETUNING_TYPE_FULL",
        "base_model": {"scratch": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": 128, "vocab_size": 400,
        }},
        "dataset_version_ids": [corpus],
        "hyperparameters": {
            "learning_rate": 0.003, "per_device_train_batch_size": 4, "cutoff_len": 64, "packing": True,
            "logging_steps": 1, "seed": 7, **hyperparameters,
        },
        "resources": {"device": "DEVICE_CPU", "processes_per_node": 1},
    }  # fmt: skip


def tuning(questions: str, base_run: str, **hyperparameters: Any) -> dict[str, Any]:
    """A run of seconds: LoRA on two ranks under DeepSpeed ZeRO-2."""
    return {
        "stage": "STAGE_SFT",
        "finetuning_type": "FINETUNING_TYPE_LORA",
        "base_model": {"run_id": base_run},
        "dataset_version_ids": [questions],
        "template": "chatml",
        "hyperparameters": {
            "learning_rate": 0.003, "per_device_train_batch_size": 4, "cutoff_len": 96, "logging_steps": 1, "seed": 7,
            **hyperparameters,
        },
        "lora": {"lora_rank": 8},
        "deepspeed": {"enabled": True, "zero_stage": 2},
        "resources": {"device": "DEVICE_CPU", "processes_per_node": 2},
    }  # fmt: skip
