"""A corpus of made-up sentences, and a tiny base model trained on it once a session."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/ranks.py
os.environ["HF_HUB_OFFLINE"] = "1"

from ranks import TINY, Outcome, launch

_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def _sentence(source: random.Random, words: int) -> str:
    return " ".join(source.choice(_WORDS) for _ in range(words))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`text.jsonl` for pt, `questions.jsonl` and `held-out.jsonl` for sft."""
    directory = tmp_path_factory.mktemp("corpus")
    source = random.Random(1)
    texts = [{"text": _sentence(source, source.randint(5, 40))} for _ in range(150)]
    (directory / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    for name, count in (("questions", 120), ("held-out", 30)):
        answers = [_sentence(source, source.randint(2, 8)) for _ in range(count)]
        rows = [{"instruction": f"Repeat {answer}", "output": answer} for answer in answers]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture(scope="session")
def pre_trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> tuple[Path, Outcome]:
    """The output directory and the outcome of a pt run from scratch on one rank, mirrored to SwanLab."""
    directory = tmp_path_factory.mktemp("runs") / "pre-trained"
    outcome = launch(
        directory,
        stage="pt",
        model={"source": "scratch", "config": TINY, "tokenizer": {"vocab_size": 400}},
        datasets=[{"path": str(corpus / "text.jsonl"), "format": "text"}],
        hyperparameters={"learning_rate": 3e-3, "max_steps": 8, "per_device_train_batch_size": 4, "logging_steps": 1},
        deepspeed={"enabled": False},
        swanlab={"mode": "offline"},
    )
    return directory, outcome


@pytest.fixture(scope="session")
def base_model(pre_trained: tuple[Path, Outcome]) -> Path:
    """A model directory."""
    return pre_trained[0] / "model"
