"""A launch spec refuses what no launcher could carry out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier_training_orchestrator.launchers import open_launcher
from espalier_training_orchestrator.spec import Phase, Resources, WorkKind


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Run 1"},
        {"name": "a" * 64},
        {"command": ()},
        {"directory": "relative"},
        {"files": {"../outside": ""}},
        {"files": {"/absolute": ""}},
        {"health_path": "/health"},
        {"kind": WorkKind.SERVER, "health_path": None},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec_for: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(spec_for(tmp_path), **changes)


def test_resources_know_their_ranks_and_bounds() -> None:
    assert Resources(device="cuda", nodes=2, processes_per_node=8).world_size == 16
    with pytest.raises(ValueError, match="cpu or cuda"):
        Resources(device="tpu")
    with pytest.raises(ValueError, match="at least 1"):
        Resources(device="cpu", nodes=0)


def test_phases_know_their_end() -> None:
    assert [phase for phase in Phase if phase.is_terminal] == [Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED]


def test_an_unknown_launcher_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="choose one of local"):
        open_launcher("slurm")
