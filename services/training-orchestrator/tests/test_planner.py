"""The plan is pure, and what it writes is what the trainer reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor import FieldDescriptor

from espalier.training_orchestrator.v1 import run_pb2
from espalier_data.templates import template_names
from espalier_data.tokenizer import MIN_VOCAB_SIZE, OWN_TEMPLATE
from espalier_training_orchestrator import planner
from espalier_training_orchestrator.runs import refusals, spec
from espalier_training_orchestrator.runs.facts import BaseRunFacts, DatasetFacts, Facts, FileFacts, PlatformFacts
from espalier_training_orchestrator.runs.messages import spec_document
from espalier_training_orchestrator.runs.models import TRANSITIONS, RunState

VERSION, OTHER = "018f6e1c-0b0a-7c3e-9d5a-000000000001", "018f6e1c-0b0a-7c3e-9d5a-000000000002"
TRAINER = planner.TrainerSettings(
    python="/usr/bin/python3",
    orchestrator="127.0.0.1:7000",
    nats_url="nats://runner:secret@127.0.0.1:4222",
    installation="here",
    grace_seconds=300,
    server_threads=0,
    swanlab_mode="disabled",
    swanlab_project="espalier",
)
ATTEMPT = planner.AttemptFacts(
    run_id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002",
    number=2,
    directory="/artifacts/runs/r/attempts/2",
    output_dir="/artifacts/runs/r",
    resume_from="/artifacts/runs/r/checkpoints/step-7",
    token="t0ken",
)


def file_facts(name: str, split: str, form: str) -> FileFacts:
    return FileFacts(
        name=name, split=split, path=f"/blobs/{name}", format=form, has_answers=form != "text", accepted_rows=10
    )


def facts(form: str = "openai", *names: str) -> Facts:
    """Two versions with a train file each, and validation files of these names in both."""
    validation = [file_facts(name, "validation", form) for name in names]
    files = [file_facts("train", "train", form), *validation]
    return Facts(
        platform=PlatformFacts(ranks=4, gpus=2, cores=2, templates=template_names()),
        datasets={id_: DatasetFacts(id=id_, state="READY", files=files) for id_ in (VERSION, OTHER)},
        base_run=BaseRunFacts(state="SUCCEEDED", template="chatml", model_directory="/artifacts/runs/b/model"),
    )


def asked(**fields: Any) -> spec.RunSpec:
    wanted: dict[str, Any] = {
        "stage": run_pb2.STAGE_SFT,
        "finetuning_type": run_pb2.FINETUNING_TYPE_LORA,
        "base_model": run_pb2.BaseModel(run_id=VERSION),
        "dataset_version_ids": [VERSION, OTHER],
    }
    return spec.RunSpec.model_validate(spec_document(run_pb2.RunSpec(**(wanted | fields))))


SCRATCH = run_pb2.ScratchModel(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=128, max_position_embeddings=256, vocab_size=512,
)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        (asked(), facts("openai", "validation", "held-out")),
        (asked(lora=run_pb2.LoraConfig(lora_rank=4, lora_target=["q_proj"])), facts("alpaca")),
        (
            asked(
                stage=run_pb2.STAGE_PT,
                finetuning_type=run_pb2.FINETUNING_TYPE_FULL,
                base_model=run_pb2.BaseModel(scratch=SCRATCH),
                hyperparameters=run_pb2.Hyperparameters(max_steps=5, packing=True, eval_before=True, eval_steps=2),
                deepspeed=run_pb2.DeepspeedConfig(enabled=True, zero_stage=3, offload=run_pb2.OFFLOAD_CPU),
                resources=run_pb2.Resources(processes_per_node=2, device=run_pb2.DEVICE_CUDA),
            ),
            facts("text", "validation"),
        ),
        (asked(base_model=run_pb2.BaseModel(hub="Qwen/Qwen3-0.6B"), template="model"), facts("sharegpt")),
    ],
)
def test_the_trainer_reads_what_the_planner_writes(wanted: spec.RunSpec, known: Facts, tmp_path: Path) -> None:
    run_file = pytest.importorskip("espalier_trainer.run_file", reason="the trainer is not installed")
    assert refusals.problems(wanted, known) == []
    launch = planner.plan_attempt(wanted, known, ATTEMPT, trainer=TRAINER)
    path = tmp_path / "run.yaml"
    path.write_text(launch.files["run.yaml"], "utf-8")
    read = run_file.load_run_file(path)
    assert (read.run_id, read.attempt) == (ATTEMPT.run_id, 2)
    assert str(read.resume_from) == ATTEMPT.resume_from


def test_the_launch_carries_name_token_and_addresses_but_no_secret_in_its_command() -> None:
    launch = planner.plan_attempt(asked(), facts(), ATTEMPT, trainer=TRAINER)
    assert launch.name == f"run-{ATTEMPT.run_id}-a2"
    assert launch.files["token"] == "t0ken"
    assert launch.env["ESPALIER_ATTEMPT_TOKEN_FILE"] == f"{ATTEMPT.directory}/token"
    assert not any("secret" in word or "t0ken" in word for word in (*launch.command, launch.files["run.yaml"]))
    assert planner.plan_attempt(asked(), facts(), ATTEMPT, trainer=TRAINER) == launch


def test_validation_files_of_one_name_are_told_apart() -> None:
    launch = planner.plan_attempt(asked(), facts("openai", "validation", "held-out"), ATTEMPT, trainer=TRAINER)
    entries = yaml.safe_load(launch.files["run.yaml"])["datasets"]
    names = [entry.get("name", "") for entry in entries if entry["split"] == "validation"]
    assert names == ["", "held_out", "validation_2", "held_out_2"]


def test_zero_means_the_default_that_stands_at_the_field() -> None:
    content = yaml.safe_load(planner.run_yaml(asked(), facts(), ATTEMPT, trainer=TRAINER))
    assert content["hyperparameters"] == {
        "learning_rate": 5e-5, "num_train_epochs": 1.0, "max_steps": -1, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1, "lr_scheduler_type": "cosine", "warmup_steps": 0, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "seed": 42, "logging_steps": 1, "save_steps": 0, "save_total_limit": 3,
        "eval_steps": 0, "train_on_prompt": False,
    }  # fmt: skip
    assert content["lora"] == {"lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.0, "lora_target": "all-linear"}
    assert content["cutoff_len"] == 1024


def test_a_run_without_rows_or_with_more_ranks_than_there_are_is_refused() -> None:
    empty = facts()
    bare = {
        id_: replace(dataset, files=[replace(file, accepted_rows=0) for file in dataset.files])
        for id_, dataset in empty.datasets.items()
    }
    reasons = [problem.reason for problem in refusals.problems(asked(), replace(empty, datasets=bare))]
    assert reasons == ["NO_TRAINING_ROWS"]
    many = asked(resources=run_pb2.Resources(processes_per_node=64))
    assert [problem.reason for problem in refusals.problems(many, facts())] == [
        "MORE_RANKS_THAN_ROWS",
        "MORE_RANKS_THAN_CAPACITY",
    ]


def test_the_typed_spec_has_every_field_of_the_contract() -> None:
    pairs = [
        (run_pb2.RunSpec, spec.RunSpec),
        (run_pb2.Hyperparameters, spec.Hyperparameters),
        (run_pb2.LoraConfig, spec.LoraConfig),
        (run_pb2.DeepspeedConfig, spec.DeepspeedConfig),
        (run_pb2.Resources, spec.ResourceRequest),
        (run_pb2.BaseModel, spec.BaseModelSource),
        (run_pb2.ScratchModel, spec.ScratchModel),
    ]
    for message, model in pairs:
        fields: list[FieldDescriptor] = list(message.DESCRIPTOR.fields)
        assert {field.name for field in fields} == set(model.model_fields), message


def test_what_two_packages_must_agree_on_is_the_same() -> None:
    assert (spec.OWN_TEMPLATE, refusals.MIN_VOCAB_SIZE) == (OWN_TEMPLATE, MIN_VOCAB_SIZE)


def test_terminal_states_are_left_only_by_a_resume() -> None:
    assert set(TRANSITIONS) == set(RunState)
    for state in RunState:
        if state.is_terminal:
            assert TRANSITIONS[state] <= {RunState.QUEUED}
