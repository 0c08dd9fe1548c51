"""Every reason why a run cannot be planned, all at once. Pure.

A problem with what was asked (`is_state` False) stays one whatever happens; one with the platform's state may pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espalier_training_orchestrator.runs.facts import DatasetFacts, Facts
from espalier_training_orchestrator.runs.spec import (
    DEFAULT_CUTOFF_LEN,
    OWN_TEMPLATE,
    FinetuningType,
    Offload,
    RunSpec,
    ScratchModel,
    Stage,
)

MIN_VOCAB_SIZE = 300
MIN_CUTOFF_LEN = 8


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One reason: the field it stands at, a sentence fragment that follows the field's name, a machine reason."""

    field: str
    description: str
    reason: str
    is_state: bool = False


def problems(spec: RunSpec, facts: Facts) -> list[Problem]:
    """Every reason why this cannot run; none when it can."""
    return [
        *_stage_problems(spec),
        *_base_problems(spec, facts),
        *_dataset_problems(spec, facts),
        *_template_problems(spec, facts),
        *_lora_problems(spec),
        *_deepspeed_problems(spec),
        *_resource_problems(spec, facts),
    ]


def _stage_problems(spec: RunSpec) -> Iterator[Problem]:
    if spec.stage is Stage.UNSPECIFIED:
        yield Problem(field="stage", description="is missing; say STAGE_PT or STAGE_SFT", reason="REQUIRED")
    if 0 < spec.hyperparameters.cutoff_len < MIN_CUTOFF_LEN:
        yield Problem(
            field="hyperparameters.cutoff_len",
            description=f"must be at least {MIN_CUTOFF_LEN} tokens, or 0 for the default",
            reason="TOO_SMALL",
        )


def _base_problems(spec: RunSpec, facts: Facts) -> Iterator[Problem]:
    base = spec.base_model
    if base.scratch is not None:
        yield from _scratch_problems(base.scratch, spec)
    elif base.run_id:
        yield from _base_run_problems(spec, facts)
    elif base.directory:
        yield from _directory_problems(base.directory, facts)
    elif not base.hub:
        yield Problem(
            field="base_model",
            description="names no model; give one of scratch, run_id, directory or hub",
            reason="REQUIRED",
        )


def _scratch_problems(model: ScratchModel, spec: RunSpec) -> Iterator[Problem]:
    place = "base_model.scratch"
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if not getattr(model, name):
            yield Problem(field=f"{place}.{name}", description="is missing", reason="REQUIRED")
    heads, groups = model.num_attention_heads, model.num_key_value_heads or model.num_attention_heads
    # Rotary embeddings pair the dimensions of a head, so its size must be even.
    if heads and model.hidden_size % (2 * heads):
        yield Problem(
            field=f"{place}.num_attention_heads",
            description=f"is {heads}, but hidden_size {model.hidden_size} is no multiple of twice that",
            reason="HEADS_DO_NOT_DIVIDE",
        )
    if heads and heads % groups:
        yield Problem(
            field=f"{place}.num_key_value_heads",
            description=f"is {groups}, which does not divide num_attention_heads {heads}",
            reason="HEADS_DO_NOT_DIVIDE",
        )
    if model.vocab_size < MIN_VOCAB_SIZE:
        yield Problem(field=f"{place}.vocab_size", description=f"must be at least {MIN_VOCAB_SIZE}", reason="TOO_SMALL")
    longest = model.max_position_embeddings
    if not longest:
        yield Problem(field=f"{place}.max_position_embeddings", description="is missing", reason="REQUIRED")
    elif spec.hyperparameters.cutoff_len > longest:
        yield Problem(
            field="hyperparameters.cutoff_len",
            description=f"is longer than the model's max_position_embeddings {longest}",
            reason="CUTOFF_TOO_LONG",
        )


def _base_run_problems(spec: RunSpec, facts: Facts) -> Iterator[Problem]:
    place = "base_model.run_id"
    if facts.base_run is None:
        yield Problem(field=place, description=f"names no run: {spec.base_model.run_id!r}", reason="RUN_NOT_FOUND")
    elif facts.base_run.state != "SUCCEEDED" or not facts.base_run.model_directory:
        yield Problem(
            field=place,
            description=f"names a run that is {facts.base_run.state}; only a SUCCEEDED run has a finished model",
            reason="BASE_RUN_NOT_SUCCEEDED",
            is_state=True,
        )


def _directory_problems(directory: str, facts: Facts) -> Iterator[Problem]:
    place = "base_model.directory"
    roots = facts.platform.model_roots
    found = Path(facts.base_directory) if facts.base_directory else Path(directory)
    # Whether a path outside exists is nobody's business: the same answer for all of them.
    if not Path(directory).is_absolute() or not any(found.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) if roots else "none is allowed; the setting is ESPALIER_MODEL_ROOTS"
        yield Problem(
            field=place,
            description=f"must be an absolute path below a directory that the operator allows ({allowed})",
            reason="DIRECTORY_NOT_ALLOWED",
        )
    elif not facts.base_directory:
        yield Problem(
            field=place,
            description=f"names no model: {directory!r} is no directory with a config.json",
            reason="DIRECTORY_NOT_FOUND",
            is_state=True,
        )


def _dataset_problems(spec: RunSpec, facts: Facts) -> Iterator[Problem]:
    usable: list[DatasetFacts] = []
    for index, version_id in enumerate(spec.dataset_version_ids):
        place = f"dataset_version_ids[{index}]"
        if version_id in spec.dataset_version_ids[:index]:
            yield Problem(field=place, description="is given twice", reason="DUPLICATE")
            continue
        dataset = facts.datasets.get(version_id)
        if dataset is None:
            yield Problem(
                field=place, description=f"names no dataset version: {version_id!r}", reason="DATASET_VERSION_NOT_FOUND"
            )
        elif dataset.state != "READY":
            yield Problem(field=place, **_not_ready(dataset), is_state=True)
        else:
            usable.append(dataset)
            yield from _format_problems(spec.stage, dataset, place)
    if len(usable) == len(spec.dataset_version_ids):
        yield from _amount_problems(spec, usable)


def _not_ready(dataset: DatasetFacts) -> dict[str, str]:
    if dataset.state == "VALIDATING":
        description = "names a version whose rows are still being checked; try again when it is READY"
        return {"description": description, "reason": "DATASET_NOT_READY"}
    return {"description": f"names a version that was rejected: {dataset.message}", "reason": "DATASET_REJECTED"}


def _format_problems(stage: Stage, dataset: DatasetFacts, place: str) -> Iterator[Problem]:
    for file in dataset.files:
        if stage is Stage.SFT and not file.has_answers:
            yield Problem(
                field=place,
                description=f"has plain text ({file.name}), which has no answers to learn; use STAGE_PT",
                reason="FORMAT_DOES_NOT_FIT_STAGE",
            )
        if stage is Stage.PT and file.has_answers:
            yield Problem(
                field=place,
                description=f"has conversations ({file.name}); STAGE_PT reads plain text, use STAGE_SFT for them",
                reason="FORMAT_DOES_NOT_FIT_STAGE",
            )


def _amount_problems(spec: RunSpec, datasets: list[DatasetFacts]) -> Iterator[Problem]:
    rows = sum(file.accepted_rows for dataset in datasets for file in dataset.files if file.split == "train")
    ranks = spec.resources.world_size
    if rows == 0:
        yield Problem(
            field="dataset_version_ids",
            description="hold no row of the split train, so there is nothing to train on",
            reason="NO_TRAINING_ROWS",
        )
    elif rows < ranks and not spec.hyperparameters.packing and spec.stage is Stage.SFT:
        yield Problem(
            field="resources.processes_per_node",
            description=f"asks for {ranks} ranks, but there are only {rows} rows to train on: some would have none",
            reason="MORE_RANKS_THAN_ROWS",
        )


def _template_problems(spec: RunSpec, facts: Facts) -> Iterator[Problem]:
    names = [*facts.platform.templates, *([] if spec.base_model.scratch else [OWN_TEMPLATE])]
    if spec.template_name not in names:
        yield Problem(
            field="template",
            description=f"is {spec.template!r}, which is unknown; choose one of {', '.join(names)}",
            reason="UNKNOWN_TEMPLATE",
        )


def _lora_problems(spec: RunSpec) -> Iterator[Problem]:
    if spec.uses_lora and spec.base_model.scratch is not None:
        yield Problem(
            field="finetuning_type",
            description="is LoRA, but a model from scratch has nothing to adapt; train all weights",
            reason="LORA_FROM_SCRATCH",
        )
    if spec.lora is not None and not spec.uses_lora:
        yield Problem(
            field="lora",
            description="is set, but finetuning_type is not FINETUNING_TYPE_LORA; set that, or leave lora out",
            reason="LORA_SETTINGS_WITHOUT_LORA",
        )
    for index, name in enumerate(spec.lora.lora_target if spec.lora else ()):
        if not name.strip():
            yield Problem(field=f"lora.lora_target[{index}]", description="is empty", reason="REQUIRED")


def _deepspeed_problems(spec: RunSpec) -> Iterator[Problem]:
    settings = spec.deepspeed
    if settings.zero_stage and not settings.enabled:
        yield Problem(
            field="deepspeed.zero_stage",
            description="is set, but deepspeed.enabled is not; switch it on, or leave the stage out",
            reason="ZERO_WITHOUT_DEEPSPEED",
        )
    if settings.offload is Offload.CPU and (not settings.enabled or settings.zero_stage < 2):
        yield Problem(
            field="deepspeed.offload",
            description="needs DeepSpeed with ZeRO stage 2 or 3",
            reason="OFFLOAD_WITHOUT_ZERO",
        )


def _resource_problems(spec: RunSpec, facts: Facts) -> Iterator[Problem]:
    wanted, platform = spec.resources, facts.platform
    ranks = wanted.world_size
    if wanted.nodes > 1 and not platform.several_nodes:
        yield Problem(
            field="resources.nodes",
            description=f"is {wanted.nodes}, but this platform trains on one machine; use processes_per_node",
            reason="ONE_MACHINE",
        )
    if wanted.device_name == "cuda" and ranks > platform.gpus:
        there = f"only {platform.gpus}" if platform.gpus else "none"
        yield Problem(
            field="resources.device",
            description=f"asks for {ranks} GPUs, one a rank, but there are {there} here",
            reason="NOT_ENOUGH_GPUS",
        )
    if wanted.device_name == "cpu" and ranks > platform.ranks:
        yield Problem(
            field="resources.processes_per_node",
            description=f"asks for {ranks} ranks, more than the {platform.ranks} that ever train here at once",
            reason="MORE_RANKS_THAN_CAPACITY",
        )


def warnings(spec: RunSpec, facts: Facts) -> list[str]:
    """Things worth knowing that are no reason to refuse."""
    return list(_warnings(spec, facts))


def _warnings(spec: RunSpec, facts: Facts) -> Iterator[str]:
    files = [file for dataset in facts.datasets.values() for file in dataset.files]
    if not any(file.split == "validation" for file in files):
        yield "There is no validation file: the run will show no held-out loss."
    if not spec.hyperparameters.save_steps:
        yield "save_steps is 0: a crash loses everything since the start or the last stop."
    if spec.deepspeed.enabled and spec.deepspeed.zero_stage and spec.resources.world_size == 1:
        yield f"ZeRO stage {spec.deepspeed.zero_stage} on one rank shards nothing."
    if facts.base_run is not None and facts.base_run.template not in ("", spec.template_name):
        yield f"The base model was trained with the template {facts.base_run.template}, not {spec.template_name}."
    threads = spec.resources.world_size * (spec.resources.threads_per_process or 1)
    if spec.resources.device_name == "cpu" and threads > facts.platform.cores:
        yield f"{threads} threads compute on {facts.platform.cores} cores: they will wait for each other."
    if spec.finetuning_type is FinetuningType.UNSPECIFIED:
        yield "finetuning_type is not given: all weights are trained."
    if not spec.hyperparameters.cutoff_len and spec.base_model.scratch is None:
        yield f"cutoff_len is not given: sequences are cut at {DEFAULT_CUTOFF_LEN} tokens."
