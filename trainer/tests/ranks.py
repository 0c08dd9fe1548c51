"""Starts ranks as the runner does, and reads what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from espalier_common.infra.processes import free_port

_DEADLINE = 900  # seconds; a run of these tests takes about 4 on two idle cores

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
    outputs = [directory / f"output-{rank}" for rank in range(ranks)]
    codes = _run([_rank(path, output, rank, ranks) for rank, output in enumerate(outputs)])
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return Outcome(codes, [output.read_text() for output in outputs], [json.loads(line) for line in lines])


def _rank(run_file: Path, output: Path, rank: int, ranks: int) -> dict[str, Any]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1"}
    environment = {name: str(value) for name, value in place.items()}
    return {"arguments": [str(run_file)], "output": str(output), "environment": environment}


def _run(ranks: list[dict[str, Any]]) -> list[int]:
    """Starts them together and gives their exit codes."""
    port = str(free_port())
    for rank in ranks:
        rank["environment"]["MASTER_PORT"] = port
    nursery = _nursery()
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    deadline = threading.Timer(_DEADLINE, nursery.kill)
    deadline.start()
    nursery.stdin.write(json.dumps(ranks) + "\n")
    nursery.stdin.flush()
    answer = nursery.stdout.readline()
    deadline.cancel()
    assert answer, f"the ranks did not end within {_DEADLINE} s, or whoever forks them died"
    codes: list[int] = json.loads(answer)
    return codes


@cache
def _nursery() -> subprocess.Popen[str]:
    """It ends with the tests' own process, whose end closes its stdin."""
    command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
