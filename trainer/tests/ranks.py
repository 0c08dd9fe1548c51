"""Starts ranks as the runner does, and reads what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espalier_common.infra.processes import free_port

_DEADLINE = 900  # seconds; a run of these tests takes about 10 on two idle cores

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


@dataclass(frozen=True)
class Outcome:
    """How the ranks of one attempt ended."""

    codes: list[int]
    outputs: list[str]
    metrics: list[dict[str, Any]]

    def loss(self, step: int) -> float:
        return next(line["values"]["train/loss"] for line in self.metrics if line["step"] == step)

    @property
    def final(self) -> dict[str, Any]:
        return self.metrics[-1]

    @property
    def last_line(self) -> str:
        return self.outputs[0].strip().splitlines()[-1]


def launch(output_dir: Path, *, ranks: int = 1, attempt: int = 1, stop: str = "", **run: Any) -> Outcome:
    """Runs one attempt to its end."""
    directory = output_dir / "attempts" / str(attempt)
    directory.mkdir(parents=True)
    if stop:
        (directory / "stop").write_text(stop)
    content = {
        "run_id": output_dir.name,
        "attempt": attempt,
        "output_dir": str(output_dir),
        "cutoff_len": 64,
        "packing": True,
        "resources": {"processes_per_node": ranks},
        **run,
    }
    path = directory / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    processes = (
        [_start(path, rank, ranks, port=free_port()) for rank in range(ranks)] if ranks == 1 else _together(path, ranks)
    )
    outputs = [process.communicate(timeout=_DEADLINE)[0] for process in processes]
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return Outcome([process.returncode for process in processes], outputs, [json.loads(line) for line in lines])


def _together(path: Path, ranks: int) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [_start(path, rank, ranks, port=port) for rank in range(ranks)]


def _start(path: Path, rank: int, ranks: int, *, port: int) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-m", "espalier_trainer.train", str(path)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
