from pathlib import Path

import pytest

from espalier_client import run_file
from espalier_client.errors import InvalidInput, UsageError


def version(reference: str) -> str:
    return f"id of {reference}"


def test_words_of_the_field_become_the_apis_enums(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "name: tuning\nstage: sft\nfinetuning_type: lora\nbase_model: {hub: Qwen/Qwen3-0.6B}\ndatasets: [questions]\n"
        "deepspeed: {zero_stage: 2, offload: cpu}\nresources: {device: cuda}\n"
    )
    made = run_file.request(run_file.read(file), dataset_version=version)
    assert made == {
        "name": "tuning",
        "spec": {
            "stage": "STAGE_SFT",
            "finetuning_type": "FINETUNING_TYPE_LORA",
            "base_model": {"hub": "Qwen/Qwen3-0.6B"},
            "dataset_version_ids": ["id of questions"],
            "deepspeed": {"zero_stage": 2, "offload": "OFFLOAD_CPU", "enabled": True},
            "resources": {"device": "DEVICE_CUDA"},
        },
    }


def test_flags_go_before_the_file_and_leave_the_rest_alone() -> None:
    file = {"name": "a", "hyperparameters": {"learning_rate": 1, "seed": 2}, "base_model": {"hub": "x"}}
    flags = {"name": None, "hyperparameters": {"seed": 3}, "base_model": {"run_id": "y"}, "datasets": []}
    merged = run_file.merged(file, flags)
    assert merged == {"name": "a", "hyperparameters": {"learning_rate": 1, "seed": 3}, "base_model": {"run_id": "y"}}


def test_values_of_flags_are_read_as_yaml_reads_them() -> None:
    found = run_file.assignments(["learning_rate=1e-3", "packing=true", "max_steps=10", "lr_scheduler_type=linear"])
    assert found == {"learning_rate": 0.001, "packing": True, "max_steps": 10, "lr_scheduler_type": "linear"}


def test_a_flag_without_a_value_is_a_wrong_command_line() -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        run_file.assignments(["learning_rate"])


@pytest.mark.parametrize("text", ["a: [1", "- a list", "\t", "a: b: c"])
def test_a_broken_run_file_gives_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"run\.yaml"):
        run_file.read(file)
