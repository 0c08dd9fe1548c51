"""Real runs of one and two ranks: what they leave is whole, and a resumed run goes on as if it had never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ranks import Outcome, launch

from espalier_trainer.checkpoints import MANIFEST, committed, verify
from espalier_trainer.exit_codes import ExitCode

pytestmark = pytest.mark.slow


def _fine_tuning(corpus: Path, base_model: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "learning_rate": 5e-3,
        "max_steps": 8,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "save_steps": 4,
    }
    run: dict[str, Any] = {
        "stage": "sft",
        "finetuning_type": "lora",
        "model": {"source": "directory", "path": str(base_model)},
        "datasets": [
            {"path": str(corpus / "questions.jsonl"), "format": "alpaca"},
            {"path": str(corpus / "held-out.jsonl"), "format": "alpaca", "split": "validation"},
            {"path": str(corpus / "questions.jsonl"), "format": "alpaca", "split": "validation", "name": "seen"},
        ],
        "eval_before": True,
        "lora": {"lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        "hyperparameters": settings,
        "deepspeed": {"enabled": True, "zero_stage": 2},
    }
    return {**run, **changes}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, corpus: Path, base_model: Path) -> tuple[Path, Outcome]:
    """An uninterrupted LoRA run under ZeRO-2 on two ranks, with checkpoints at steps 4 and 8."""
    directory = tmp_path_factory.mktemp("runs") / "tuned"
    return directory, launch(directory, ranks=2, **_fine_tuning(corpus, base_model))


def test_pre_training_from_scratch_leaves_a_model_that_loads(pre_trained: tuple[Path, Outcome]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory, outcome = pre_trained
    assert outcome.codes == [0], outcome.outputs[0]
    assert outcome.loss(8) < outcome.loss(1)
    assert outcome.final["final"] is True
    model = AutoModelForCausalLM.from_pretrained(directory / "model", use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    assert tokenizer.decode(tokenizer("alpha beta é")["input_ids"]) == "alpha beta é"
    assert model.generation_config.eos_token_id == [
        tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")
    ]
    assert verify(directory / "model").step == 8


def test_the_swanlab_mirror_is_written_offline(pre_trained: tuple[Path, Outcome]) -> None:
    directory, outcome = pre_trained
    assert "SwanLab is off" not in outcome.outputs[0]
    assert any((directory / "swanlab").rglob("*"))


def test_two_ranks_measure_before_and_after_and_leave_adapter_and_merged_model(
    tuned: tuple[Path, Outcome], base_model: Path
) -> None:
    directory, outcome = tuned
    assert outcome.codes == [0, 0], outcome.outputs[0]
    before = next(line["values"] for line in outcome.metrics if line["step"] == 0)
    after = outcome.final["values"]
    assert set(before) == set(after) == {"eval/loss", "eval/perplexity", "eval_seen/loss", "eval_seen/perplexity"}
    assert after["eval/loss"] < before["eval/loss"]
    assert [path.name for path in committed(directory / "checkpoints")] == ["step-4", "step-8"]
    assert verify(directory / "checkpoints" / "step-4").world_size == 2
    assert {path.name for path in (directory / "adapter").iterdir()} == {
        MANIFEST,
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    _assert_merged(base_model, directory)


def _assert_merged(base_model: Path, directory: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(20)[None]
    base = AutoModelForCausalLM.from_pretrained(base_model)
    merged = AutoModelForCausalLM.from_pretrained(directory / "model")
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, str(directory / "adapter")).eval()(ids).logits
        assert torch.allclose(merged(ids).logits, adapted, atol=1e-4)
    assert not torch.allclose(plain, adapted, atol=1e-2)


def test_a_resumed_run_has_the_losses_of_the_uninterrupted_one(
    tuned: tuple[Path, Outcome], corpus: Path, base_model: Path
) -> None:
    directory, whole = tuned
    resumed = launch(
        directory,
        ranks=2,
        attempt=2,
        **_fine_tuning(corpus, base_model, resume_from=str(directory / "checkpoints" / "step-4")),
    )
    assert resumed.codes == [0, 0], resumed.outputs[0]
    assert [line["step"] for line in resumed.metrics] == [5, 6, 7, 8, 8]
    for step in range(5, 9):
        assert resumed.loss(step) == pytest.approx(whole.loss(step), abs=1e-4)
    for name, value in whole.final["values"].items():
        assert resumed.final["values"][name] == pytest.approx(value, rel=1e-4)
    tokens = [
        next(line["values"]["train/tokens"] for line in run.metrics if line["step"] == 8) for run in (whole, resumed)
    ]
    assert tokens[0] == tokens[1]


def test_a_run_that_crashed_after_its_last_step_only_finishes(
    tuned: tuple[Path, Outcome], corpus: Path, base_model: Path
) -> None:
    directory, whole = tuned
    finished = launch(
        directory,
        ranks=2,
        attempt=3,
        **_fine_tuning(corpus, base_model, resume_from=str(directory / "checkpoints" / "step-8")),
    )
    assert finished.codes == [0, 0], finished.outputs[0]
    assert [line["step"] for line in finished.metrics] == [8]
    assert finished.final["values"]["eval/loss"] == pytest.approx(whole.final["values"]["eval/loss"], rel=1e-4)


def test_a_stop_with_save_leaves_a_complete_checkpoint(tmp_path: Path, corpus: Path, base_model: Path) -> None:
    run = _fine_tuning(corpus, base_model, deepspeed={"enabled": False}, eval_before=False)
    outcome = launch(tmp_path, ranks=2, stop="save", **run)
    assert outcome.codes == [ExitCode.STOPPED, ExitCode.STOPPED], outcome.outputs[0]
    assert verify(tmp_path / "checkpoints" / "step-1").step == 1
    assert not (tmp_path / "model").exists()


def test_a_stop_with_discard_leaves_nothing(tmp_path: Path, corpus: Path, base_model: Path) -> None:
    outcome = launch(tmp_path, stop="discard", **_fine_tuning(corpus, base_model, eval_before=False))
    assert outcome.codes == [ExitCode.DISCARDED], outcome.outputs[0]
    assert committed(tmp_path / "checkpoints") == []


def test_full_fine_tuning_under_zero_3_gathers_its_model(tmp_path: Path, corpus: Path, base_model: Path) -> None:
    from safetensors import safe_open

    run = _fine_tuning(corpus, base_model, finetuning_type="full", deepspeed={"enabled": True, "zero_stage": 3})
    run["hyperparameters"] = {**run["hyperparameters"], "max_steps": 3, "save_steps": 0, "learning_rate": 1e-3}
    outcome = launch(tmp_path, ranks=2, **run)
    assert outcome.codes == [0, 0], outcome.outputs[0]
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as weights:
        assert weights.get_tensor("model.embed_tokens.weight").shape[1] == 32
    assert json.loads((tmp_path / "model" / "config.json").read_text())["hidden_size"] == 32


def test_a_lost_loss_ends_the_run_with_a_sentence(tmp_path: Path, corpus: Path, base_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(base_model)
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "broken" / name).write_bytes((base_model / name).read_bytes())
    run = _fine_tuning(corpus, tmp_path / "broken", deepspeed={"enabled": False}, eval_before=False)
    outcome = launch(tmp_path / "run", **run)
    assert outcome.codes == [ExitCode.USER_ERROR], outcome.outputs[0]
    assert outcome.last_line.startswith("error: the loss became NaN at step 1; lower learning_rate")
    assert outcome.metrics[-1]["values"]["train/loss"] == "NaN"
