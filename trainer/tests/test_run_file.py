"""What is wrong with a run.yaml or its model is one sentence, the last line of stderr, and exit code 78."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier_trainer.errors import ConfigError
from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.models import locate
from espalier_trainer.process import prepare
from espalier_trainer.run_file import RunFile, load_run_file
from espalier_trainer.train import run_rank


def _content(**changes: Any) -> dict[str, Any]:
    content = {
        "run_id": "r",
        "stage": "sft",
        "output_dir": "/tmp/never-written",
        "model": {"source": "directory", "path": "/tmp/never-read"},
        "datasets": [{"path": "data.jsonl", "format": "alpaca"}],
    }
    return {**content, **changes}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hyperparameters": {"learning_rate": "fast"}}, "hyperparameters.learning_rate"),
        ({"hyperparameters": {"learning_rate": float("nan")}}, "hyperparameters.learning_rate"),
        ({"hyperparameters": {"lerning_rate": 1}}, "hyperparameters.lerning_rate"),
        ({"stage": "dpo"}, "stage"),
        ({"output_dir": "runs"}, "absolute path"),
        ({"datasets": []}, "datasets"),
        ({"datasets": [{"path": "x", "format": "text"}]}, "no answers; use stage pt"),
        ({"datasets": [{"path": "x", "format": "alpaca", "split": "validation"}]}, "at least one entry of split train"),
        ({"template": "nope"}, "choose chatml"),
        ({"model": {"source": "hub"}}, "needs a path"),
        ({"model": {"source": "scratch"}, "finetuning_type": "lora"}, "nothing to adapt"),
        ({"model": {"source": "scratch", "config": {"hidden_size": 33}}}, "multiple of twice"),
        ({"deepspeed": {"zero_stage": 1, "offload": "cpu"}}, "ZeRO stage 2 or 3"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(_content(**change)))
    assert run_rank(path) is ExitCode.USER_ERROR
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last


@pytest.mark.parametrize("content", [None, "a: [", "- 1", "\x00"])
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_run_file(path)


def test_other_ranks_than_planned_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="plans 1 ranks"):
        prepare(RunFile.model_validate(_content()))


def test_a_hub_model_without_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    run = RunFile.model_validate(_content(model={"source": "hub", "path": "someone/some-model"}))
    with pytest.raises(ConfigError, match="not in the local cache and the hub cannot be reached"):
        locate(run)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(None, "no config.json"), ("{", "not valid JSON"), ('{"auto_map": {}}', "code of its own")],
)
def test_a_directory_that_is_no_usable_model_is_refused(tmp_path: Path, config: str | None, sentence: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    run = RunFile.model_validate(_content(model={"source": "directory", "path": str(tmp_path)}))
    with pytest.raises(ConfigError, match=sentence):
        locate(run)
