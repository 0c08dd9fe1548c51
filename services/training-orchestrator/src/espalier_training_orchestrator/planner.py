"""Plans an attempt: run and facts in, LaunchSpec and run.yaml out. Pure: nothing is read, written or asked for here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from espalier_training_orchestrator.runs.facts import Facts
from espalier_training_orchestrator.runs.spec import (
    DEFAULT_CUTOFF_LEN,
    DEFAULT_LORA_RANK,
    DEFAULTS,
    Hyperparameters,
    LoraConfig,
    RunSpec,
)
from espalier_training_orchestrator.spec import LaunchSpec, Resources, WorkKind

RUN_FILE = "run.yaml"
TOKEN_FILE = "token"  # noqa: S105 - the name of the file, not the token
HEALTH_PATH = "/health"
SERVER_GRACE_SECONDS = 10.0
MAX_DATASET_NAME = 40

# In the request, but not among the trainer's hyperparameters: they stand at the top of run.yaml.
_NOT_HYPERPARAMETERS = frozenset({"eval_before", "cutoff_len", "packing"})


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What every launch is given besides what its user asked for."""

    python: str
    orchestrator: str
    """Address under which runners reach the orchestrator."""
    nats_url: str
    installation: str
    grace_seconds: float
    server_threads: int
    """Of a model server on CPU; 0 leaves it to the server."""
    swanlab_mode: str
    swanlab_project: str


@dataclass(frozen=True, kw_only=True)
class AttemptFacts:
    """The attempt that is planned. `token` is empty in a dry run."""

    run_id: str
    number: int
    directory: str
    output_dir: str
    resume_from: str = ""
    token: str = ""


def attempt_name(run_id: str, number: int) -> str:
    """Name of the launch of an attempt; never used twice."""
    return f"run-{run_id}-a{number}"


def plan_attempt(spec: RunSpec, facts: Facts, attempt: AttemptFacts, *, trainer: TrainerSettings) -> LaunchSpec:
    """The launch of one attempt of a run for which there is no reason to refuse."""
    env = {
        "ESPALIER_RUN_DIR": attempt.directory,
        "ESPALIER_ORCHESTRATOR": trainer.orchestrator,
        "ESPALIER_ATTEMPT_TOKEN_FILE": f"{attempt.directory}/{TOKEN_FILE}",
    }
    if trainer.nats_url:
        env["ESPALIER_NATS_URL"] = trainer.nats_url
    return LaunchSpec(
        name=attempt_name(attempt.run_id, attempt.number),
        kind=WorkKind.ATTEMPT,
        command=(trainer.python, "-m", "espalier_trainer.runner"),
        env=env,
        directory=attempt.directory,
        files={RUN_FILE: run_yaml(spec, facts, attempt, trainer=trainer), TOKEN_FILE: attempt.token},
        resources=Resources(
            device=spec.resources.device_name,
            nodes=spec.resources.nodes or 1,
            processes_per_node=spec.resources.processes_per_node or 1,
            threads_per_process=spec.resources.threads_per_process or 1,
        ),
        labels={"installation": trainer.installation, "run": attempt.run_id, "attempt": str(attempt.number)},
        grace_seconds=trainer.grace_seconds,
    )


def plan_server(
    *, name: str, directory: str, model: str, served_model_name: str, device: str, trainer: TrainerSettings
) -> LaunchSpec:
    """The launch of a model server; the launcher gives it its port in the variable PORT."""
    command = [
        trainer.python, "-m", "espalier_trainer.serving",
        "--model", model, f"--served-model-name={served_model_name}", "--device", device,
    ]  # fmt: skip
    if trainer.server_threads:
        command += ["--threads", str(trainer.server_threads)]
    return LaunchSpec(
        name=name,
        kind=WorkKind.SERVER,
        command=tuple(command),
        env={},
        directory=directory,
        files={},
        resources=Resources(device=device, threads_per_process=trainer.server_threads or 1),
        labels={"installation": trainer.installation, "workload": name},
        grace_seconds=SERVER_GRACE_SECONDS,
        health_path=HEALTH_PATH,
    )


def run_yaml(spec: RunSpec, facts: Facts, attempt: AttemptFacts, *, trainer: TrainerSettings) -> str:
    """All that the ranks get from us. The first line is the command that runs it."""
    import yaml

    command = f"# ESPALIER_RUN_DIR={attempt.directory} {trainer.python} -m espalier_trainer.runner\n"
    content = {
        "run_id": attempt.run_id,
        "attempt": attempt.number,
        "stage": spec.stage.name.lower(),
        "finetuning_type": "lora" if spec.uses_lora else "full",
        "output_dir": attempt.output_dir,
        "resume_from": attempt.resume_from or None,
        "model": _model(spec, facts),
        "template": spec.template_name,
        "datasets": list(_datasets(spec, facts)),
        "cutoff_len": _cutoff_len(spec),
        "packing": spec.hyperparameters.packing,
        "eval_before": spec.hyperparameters.eval_before,
        "hyperparameters": _hyperparameters(spec.hyperparameters),
        **({"lora": _lora(spec.lora or LoraConfig())} if spec.uses_lora else {}),
        "deepspeed": {
            "enabled": spec.deepspeed.enabled,
            "zero_stage": spec.deepspeed.zero_stage,
            "offload": "cpu" if spec.deepspeed.offload.name == "CPU" else "none",
        },
        "resources": {
            "device": spec.resources.device_name,
            "nodes": spec.resources.nodes or 1,
            "processes_per_node": spec.resources.processes_per_node or 1,
            "threads_per_process": spec.resources.threads_per_process or 1,
        },
        "swanlab": {"mode": trainer.swanlab_mode, "project": trainer.swanlab_project},
    }
    return command + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _model(spec: RunSpec, facts: Facts) -> dict[str, Any]:
    base = spec.base_model
    if base.scratch is not None:
        config = base.scratch.model_dump(exclude={"vocab_size"})
        config["num_key_value_heads"] = base.scratch.num_key_value_heads or base.scratch.num_attention_heads
        return {"source": "scratch", "config": config, "tokenizer": {"vocab_size": base.scratch.vocab_size}}
    if base.run_id:
        return {"source": "directory", "path": facts.base_run.model_directory if facts.base_run else ""}
    if base.directory:
        return {"source": "directory", "path": facts.base_directory}
    return {"source": "hub", "path": base.hub}


def _datasets(spec: RunSpec, facts: Facts) -> Iterator[dict[str, Any]]:
    """The files in the order they were asked for; validation files are told apart by a name of their own."""
    taken: set[str] = set()
    for version_id in spec.dataset_version_ids:
        for file in facts.datasets[version_id].files:
            entry = {"path": file.path, "format": file.format, "split": file.split}
            if file.split == "validation":
                name = _unlike(taken, "" if file.name == "validation" else _label(file.name))
                taken.add(name)
                entry |= {"name": name} if name else {}
            yield entry


def _label(name: str) -> str:
    return name.replace("-", "_")[:MAX_DATASET_NAME]


def _unlike(taken: set[str], name: str) -> str:
    """The name, or the first of name_2, name_3 … that no earlier file has."""
    if name not in taken:
        return name
    stem = (name or "validation")[: MAX_DATASET_NAME - 4]
    return next(label for label in (f"{stem}_{number}" for number in range(2, 10_000)) if label not in taken)


def _cutoff_len(spec: RunSpec) -> int:
    if spec.hyperparameters.cutoff_len:
        return spec.hyperparameters.cutoff_len
    if spec.base_model.scratch is not None:
        return min(DEFAULT_CUTOFF_LEN, spec.base_model.scratch.max_position_embeddings)
    return DEFAULT_CUTOFF_LEN


def _hyperparameters(asked: Hyperparameters) -> dict[str, Any]:
    values = asked.model_dump(exclude=set(_NOT_HYPERPARAMETERS))
    settled: dict[str, Any] = {name: value or DEFAULTS.get(name, value) for name, value in values.items()}
    if not settled["max_steps"]:
        settled["max_steps"] = -1  # the trainer's word for "by epochs"
    return settled


def _lora(asked: LoraConfig) -> dict[str, Any]:
    rank = asked.lora_rank or DEFAULT_LORA_RANK
    target: str | Sequence[str] = list(asked.lora_target) or "all-linear"
    return {
        "lora_rank": rank,
        "lora_alpha": asked.lora_alpha or 2 * rank,
        "lora_dropout": asked.lora_dropout,
        "lora_target": target,
    }
