"""The model that is trained: from scratch, from a directory, or from the hub; whole, or with a LoRA adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from espalier_data.templates import ChatTemplate
from espalier_data.tokenizer import TextTokenizer
from espalier_trainer.errors import ConfigError
from espalier_trainer.run_file import RunFile

_HEAD = "lm_head"
_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]


def locate(run: RunFile) -> Path | None:
    """The directory of the base model, fetched from the hub if need be; None from scratch. Raises ConfigError."""
    if run.model.source == "scratch":
        return None
    directory = Path(run.model.path) if run.model.source == "directory" else _fetched(run.model.path)
    config = directory / "config.json"
    if not config.is_file():
        raise ConfigError(f"{directory} is no model directory: it has no config.json")
    try:
        own_code = "auto_map" in json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{config} is not valid JSON: {error}") from error
    if own_code:
        raise ConfigError(f"the model {run.model.path} brings code of its own, which is never run here")
    return directory


def load_model(run: RunFile, base: Path | None, tokenizer: TextTokenizer, template: ChatTemplate) -> Any:
    """The model with its weights, and its adapter when the run trains one. Raises ConfigError when unusable."""
    model = _from_scratch(run, tokenizer) if base is None else load_weights(run, base)
    stop_ids = tokenizer.stop_ids(template)
    model.generation_config.eos_token_id = stop_ids
    model.generation_config.pad_token_id = tokenizer.pad_id
    model.config.pad_token_id = tokenizer.pad_id
    model.config.use_cache = False
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and run.cutoff_len > longest:
        raise ConfigError(f"cutoff_len is {run.cutoff_len}, but the model reads at most {longest} tokens; lower it")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model only {model.config.vocab_size}; "
            "they do not belong together"
        )
    return _with_adapter(run, model) if run.finetuning_type == "lora" else model


def load_weights(run: RunFile, directory: Path) -> Any:
    """The base model of a directory; safetensors only, no code of the model is run."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=weight_type(run),
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"the model in {directory} cannot be loaded: {_first_line(error)}") from error


def weight_type(run: RunFile) -> torch.dtype:
    """bfloat16 on CUDA where the weights stand still or DeepSpeed keeps a float32 copy of them, else float32."""
    kept_elsewhere = run.deepspeed.enabled or run.finetuning_type == "lora"
    return torch.bfloat16 if run.resources.device == "cuda" and kept_elsewhere else torch.float32


def _from_scratch(run: RunFile, tokenizer: TextTokenizer) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(run.hyperparameters.seed)  # the same weights on every rank
    config = LlamaConfig(
        **run.model.config.model_dump(),
        vocab_size=tokenizer.vocab_size,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.document_end_id,
        pad_token_id=tokenizer.pad_id,
    )
    config._attn_implementation = "sdpa"
    model: Any = LlamaForCausalLM(config)
    return model.to(weight_type(run))


def _with_adapter(run: RunFile, model: Any) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    target = run.lora.lora_target
    names = target if isinstance(target, list) else [name.strip() for name in target.split(",")]
    adapted, whole = [name for name in names if name != _HEAD], [name for name in names if name == _HEAD]
    if whole and model.config.tie_word_embeddings:
        raise ConfigError("lora.lora_target: this model's lm_head is its embedding, which stays as it is; leave it out")
    if not adapted:
        raise ConfigError("lora.lora_target names no module for an adapter; add all-linear")
    config = LoraConfig(
        r=run.lora.lora_rank,
        lora_alpha=run.lora.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=run.lora.lora_dropout,
        target_modules="all-linear" if adapted == ["all-linear"] else adapted,
        modules_to_save=whole or None,
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        # ZeRO-3 gathers parameters of one type together, so the adapter must have the base's.
        return get_peft_model(model, config, autocast_adapter_dtype=run.zero_stage != 3)
    except ValueError as error:
        raise ConfigError(f"lora.lora_target does not fit the model: {_first_line(error)}") from error


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except HFValidationError as error:
        raise ConfigError(f"{name!r} is no name of a model on the hub: {_first_line(error)}") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"the hub has no model {name!r}, or it is not yours to read (HF_TOKEN)") from error
    except Exception as error:  # the hub client raises errors of its HTTP library too
        raise ConfigError(
            f"the model {name!r} is not in the local cache and the hub cannot be reached; "
            "download it where there is network, and give its directory"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
