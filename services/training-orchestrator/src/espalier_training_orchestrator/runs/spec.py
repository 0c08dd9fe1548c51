"""What a user asks for, typed. Field names are those of the contract's RunSpec, so that its JSON form reads right in.

Zero, empty and absent mean the default; the planner writes the defaults out. What is asked for never changes.
"""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Stage(StrEnum):
    """What is trained for."""

    UNSPECIFIED = "STAGE_UNSPECIFIED"
    PT = "STAGE_PT"
    SFT = "STAGE_SFT"


class FinetuningType(StrEnum):
    """Which weights are trained."""

    UNSPECIFIED = "FINETUNING_TYPE_UNSPECIFIED"
    FULL = "FINETUNING_TYPE_FULL"
    LORA = "FINETUNING_TYPE_LORA"


class Device(StrEnum):
    """What the ranks compute on."""

    UNSPECIFIED = "DEVICE_UNSPECIFIED"
    CPU = "DEVICE_CPU"
    CUDA = "DEVICE_CUDA"


class Offload(StrEnum):
    """Where optimizer state is kept under ZeRO."""

    UNSPECIFIED = "OFFLOAD_UNSPECIFIED"
    CPU = "OFFLOAD_CPU"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ScratchModel(_Part):
    """Shape of a Llama that is trained from scratch."""

    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    intermediate_size: int = 0
    max_position_embeddings: int = 0
    vocab_size: int = 0


class BaseModelSource(_Part):
    """The model a run starts from: exactly one of the four."""

    scratch: ScratchModel | None = None
    run_id: str = ""
    directory: str = ""
    hub: str = ""


class Hyperparameters(_Part):
    """Hyperparameters as asked for."""

    learning_rate: float = 0.0
    num_train_epochs: float = 0.0
    max_steps: int = 0
    per_device_train_batch_size: int = 0
    gradient_accumulation_steps: int = 0
    lr_scheduler_type: str = ""
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    seed: int = 0
    logging_steps: int = 0
    save_steps: int = 0
    save_total_limit: int = 0
    eval_steps: int = 0
    eval_before: bool = False
    cutoff_len: int = 0
    packing: bool = False
    train_on_prompt: bool = False


class LoraConfig(_Part):
    """LoRA settings as asked for."""

    lora_rank: int = 0
    lora_alpha: int = 0
    lora_dropout: float = 0.0
    lora_target: tuple[str, ...] = ()


class DeepspeedConfig(_Part):
    """DeepSpeed settings as asked for."""

    enabled: bool = False
    zero_stage: int = 0
    offload: Offload = Offload.UNSPECIFIED


class ResourceRequest(_Part):
    """What is asked of the machines."""

    device: Device = Device.UNSPECIFIED
    nodes: int = 0
    processes_per_node: int = 0
    threads_per_process: int = 0

    @property
    def device_name(self) -> str:
        """`cpu` or `cuda`."""
        return "cuda" if self.device is Device.CUDA else "cpu"

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return (self.nodes or 1) * (self.processes_per_node or 1)


class RunSpec(_Part):
    """All that is asked for."""

    stage: Stage = Stage.UNSPECIFIED
    finetuning_type: FinetuningType = FinetuningType.UNSPECIFIED
    base_model: BaseModelSource = BaseModelSource()
    dataset_version_ids: tuple[str, ...] = ()
    template: str = ""
    hyperparameters: Hyperparameters = Hyperparameters()
    lora: LoraConfig | None = None
    deepspeed: DeepspeedConfig = DeepspeedConfig()
    resources: ResourceRequest = ResourceRequest()

    @property
    def uses_lora(self) -> bool:
        """Adapters are trained, not all weights."""
        return self.finetuning_type is FinetuningType.LORA

    @property
    def template_name(self) -> str:
        """Name of the chat template."""
        return self.template or DEFAULT_TEMPLATE


DEFAULT_TEMPLATE = "chatml"
OWN_TEMPLATE = "model"
"""The template that came with the base model."""

DEFAULTS: Mapping[str, object] = {
    "learning_rate": 5e-5,
    "num_train_epochs": 1.0,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "cosine",
    "max_grad_norm": 1.0,
    "seed": 42,
    "logging_steps": 1,
    "save_total_limit": 3,
}
"""What 0 or empty means, as the contract says at the fields; every other field's default is its zero."""

DEFAULT_CUTOFF_LEN = 1024
DEFAULT_LORA_RANK = 8
