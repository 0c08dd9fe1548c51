"""run.yaml: all that the ranks get from us. Unknown keys and wrong values are refused together, each with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from espalier_data import DataError, Format
from espalier_data.templates import template_names
from espalier_data.tokenizer import MIN_VOCAB_SIZE, OWN_TEMPLATE
from espalier_trainer.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScratchConfig(_Section):
    """Shape of a Llama that starts from random weights."""

    hidden_size: Positive = 192
    num_hidden_layers: Positive = 4
    num_attention_heads: Positive = 4
    num_key_value_heads: Positive = 4
    intermediate_size: Positive = 512
    max_position_embeddings: Positive = 512

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchConfig:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError("hidden_size must be a multiple of twice num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self


class ScratchTokenizer(_Section):
    """The tokenizer that is trained on the train split when the model starts from scratch."""

    vocab_size: int = Field(default=4096, ge=MIN_VOCAB_SIZE, le=1_000_000)


class Model(_Section):
    """Where the weights come from."""

    source: Literal["scratch", "directory", "hub"]
    path: str = ""
    """A directory, or a name on the hub."""
    config: ScratchConfig = ScratchConfig()
    tokenizer: ScratchTokenizer = ScratchTokenizer()

    @model_validator(mode="after")
    def _path_is_there(self) -> Model:
        if self.source != "scratch" and not self.path:
            raise ValueError(f"a model of source {self.source} needs a path")
        return self


class DatasetEntry(_Section):
    """One dataset file. Validation files with a name are measured apart, under `eval_<name>/…`."""

    path: Path
    format: Format
    split: Literal["train", "validation"] = "train"
    name: str = Field(default="", pattern=r"^[a-z0-9_]{0,40}$")

    @property
    def label(self) -> str:
        """First part of its metric names."""
        return f"eval_{self.name}" if self.name else "eval"


class Hyperparameters(_Section):
    """As transformers and LLaMA-Factory name them."""

    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    num_train_epochs: float = Field(default=1.0, gt=0, le=10_000)
    max_steps: int = Field(default=-1, ge=-1)
    """Above 0 it overrides num_train_epochs."""
    per_device_train_batch_size: Positive = 1
    per_device_eval_batch_size: Positive | None = None
    gradient_accumulation_steps: Positive = 1
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    max_grad_norm: float = Field(default=1.0, ge=0)
    seed: int = Field(default=42, ge=0, lt=2**32)
    logging_steps: Positive = 10
    save_steps: int = Field(default=0, ge=0)
    """0 = only when asked to stop, and at the end."""
    save_total_limit: Positive | None = 3
    eval_steps: int = Field(default=0, ge=0)
    """0 = only at the end."""
    train_on_prompt: bool = False
    gradient_checkpointing: bool = False


class Lora(_Section):
    """The adapter of finetuning_type lora."""

    lora_rank: Positive = 8
    lora_alpha: float = Field(default=16, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_target: str | list[str] = "all-linear"
    """Modules with adapters. `lm_head` among them is trained whole instead: a base that never saw the markup of
    its chat template cannot learn to end its turn otherwise."""


class DeepSpeed(_Section):
    """Sharding over the ranks."""

    enabled: bool = True
    zero_stage: int = Field(default=2, ge=0, le=3)
    offload: Literal["none", "cpu"] = "none"


class Resources(_Section):
    """What the run was planned for; the ranks check that they got it."""

    device: Literal["cpu", "cuda"] = "cpu"
    nodes: Positive = 1
    processes_per_node: Positive = 1
    threads_per_process: Positive = 1

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.nodes * self.processes_per_node


class SwanLab(_Section):
    """The optional SwanLab mirror of the metrics."""

    mode: Literal["disabled", "offline", "cloud"] = "disabled"
    project: str = "espalier"


class RunFile(_Section):
    """The whole of run.yaml."""

    run_id: str = Field(min_length=1, max_length=64)
    attempt: Positive = 1
    stage: Literal["pt", "sft"]
    finetuning_type: Literal["full", "lora"] = "full"
    output_dir: Path
    resume_from: Path | None = None
    model: Model
    template: str = "chatml"
    datasets: list[DatasetEntry] = Field(min_length=1)
    cutoff_len: int = Field(default=1024, ge=8, le=1_000_000)
    packing: bool = False
    eval_before: bool = False
    """Measure every validation file before the first step too."""
    hyperparameters: Hyperparameters = Hyperparameters()
    lora: Lora = Lora()
    deepspeed: DeepSpeed = DeepSpeed()
    resources: Resources = Resources()
    swanlab: SwanLab = SwanLab()

    @property
    def checkpoints_dir(self) -> Path:
        """Where checkpoints appear as `step-<n>`."""
        return self.output_dir / "checkpoints"

    @property
    def eval_batch_size(self) -> int:
        """Rows a rank measures at once."""
        chosen = self.hyperparameters
        return chosen.per_device_eval_batch_size or chosen.per_device_train_batch_size

    @property
    def zero_stage(self) -> int | None:
        """ZeRO stage, None without DeepSpeed."""
        return self.deepspeed.zero_stage if self.deepspeed.enabled else None

    @model_validator(mode="after")
    def _fits_together(self) -> RunFile:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> list[str]:
        found = []
        if not self.output_dir.is_absolute():
            found.append("output_dir must be an absolute path")
        if not any(entry.split == "train" for entry in self.datasets):
            found.append("datasets needs at least one entry of split train")
        if self.stage == "sft":
            found += [
                f"{entry.path.name} is plain text, which has no answers; use stage pt, or a conversation format"
                for entry in self.datasets
                if not entry.format.has_answers
            ]
        if self.template != OWN_TEMPLATE and self.template not in template_names():
            found.append(
                f"template {self.template!r} is unknown; choose {', '.join(template_names())} or {OWN_TEMPLATE}"
            )
        if self.model.source == "scratch":
            found += self._scratch_problems()
        labels = [entry.label for entry in self.datasets if entry.split == "validation"]
        if len(set(labels)) != len(labels):
            found.append("validation datasets need different names")
        if self.deepspeed.offload == "cpu" and self.zero_stage not in (2, 3):
            found.append("offload needs ZeRO stage 2 or 3")
        return found

    def _scratch_problems(self) -> list[str]:
        found = []
        if self.finetuning_type == "lora":
            found.append("a model from scratch has nothing to adapt; use finetuning_type full")
        if self.template == OWN_TEMPLATE:
            found.append("a model from scratch has no template of its own; name a built-in one")
        if self.cutoff_len > self.model.config.max_position_embeddings:
            found.append("cutoff_len is larger than the model's max_position_embeddings")
        return found


def load_run_file(path: Path) -> RunFile:
    """Reads and checks run.yaml. Raises ConfigError with every problem in one sentence."""
    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return RunFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: " + "; ".join(_sentence(item) for item in error.errors())) from error
    except DataError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def _sentence(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
