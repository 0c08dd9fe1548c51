"""A checkpoint counts only when it is whole, and only for the run that it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from espalier_trainer.checkpoints import (
    MANIFEST,
    Manifest,
    checkpoint_path,
    commit,
    committed,
    newest,
    retain,
    sweep,
    verify,
)
from espalier_trainer.errors import CheckpointError
from espalier_trainer.resuming import checked_checkpoint
from espalier_trainer.run_file import RunFile

MANIFEST_OF_RUN = Manifest(
    run_id="r", attempt=1, step=5, tokens=100, world_size=2, zero_stage=2, data="abc", versions={"torch": "2"}
)


def _committed(checkpoints: Path, step: int) -> Path:
    temporary = checkpoints / f"step-{step}.tmp-a1"
    (temporary / "inner").mkdir(parents=True)
    (temporary / "weights").write_bytes(b"w" * 100)
    (temporary / "inner" / "state").write_bytes(b"s")
    commit(temporary, checkpoint_path(checkpoints, step), replace(MANIFEST_OF_RUN, step=step))
    return checkpoint_path(checkpoints, step)


def test_a_committed_checkpoint_verifies_and_lists_every_file(tmp_path: Path) -> None:
    manifest = verify(_committed(tmp_path, 5))
    assert set(manifest.files) == {"weights", "inner/state"}
    assert replace(manifest, files={}) == MANIFEST_OF_RUN


@pytest.mark.parametrize("harm", ["change", "shorten", "remove", "manifest", "garble", "outside"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, harm: str) -> None:
    path = _committed(tmp_path, 5)
    {
        "change": lambda: (path / "weights").write_bytes(b"x" * 100),
        "shorten": lambda: (path / "weights").write_bytes(b"w"),
        "remove": (path / "weights").unlink,
        "manifest": (path / MANIFEST).unlink,
        "garble": lambda: (path / MANIFEST).write_text("[]"),
        "outside": lambda: (path / MANIFEST).write_text(
            (path / MANIFEST).read_text().replace('"weights"', '"../../weights"')
        ),
    }[harm]()
    with pytest.raises(CheckpointError, match="step-5"):
        verify(path)


def test_the_newest_whole_checkpoint_is_found_behind_a_damaged_one(tmp_path: Path) -> None:
    older, newer = _committed(tmp_path, 9), _committed(tmp_path, 10)
    (newer / "weights").unlink()
    assert newest(tmp_path) == older


def test_retention_keeps_the_newest_by_step(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        _committed(tmp_path, step)
    retain(tmp_path, 2)
    assert [path.name for path in committed(tmp_path)] == ["step-9", "step-10"]


def test_what_a_crash_left_never_counts_and_is_swept(tmp_path: Path) -> None:
    (tmp_path / "step-7.tmp-a1").mkdir()
    (tmp_path / "saving-a1" / "checkpoint-7").mkdir(parents=True)
    (tmp_path / "step-6").mkdir()
    assert committed(tmp_path) == []
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-6"]


def test_a_checkpoint_saved_again_replaces_the_old_one(tmp_path: Path) -> None:
    _committed(tmp_path, 5)
    assert verify(_committed(tmp_path, 5)).step == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"resources": {"processes_per_node": 1}}, "written by 2 ranks and this attempt has 1"),
        ({"deepspeed": {"zero_stage": 3}}, "written under ZeRO stage 2 and this attempt uses ZeRO stage 3"),
        ({"deepspeed": {"enabled": False}}, "this attempt uses no DeepSpeed"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    run = _resuming(_committed(tmp_path, 5), **change)
    with pytest.raises(CheckpointError, match=sentence):
        checked_checkpoint(run, "abc")


def test_a_checkpoint_of_other_data_is_refused_and_a_fitting_one_is_taken(tmp_path: Path) -> None:
    run = _resuming(_committed(tmp_path, 5))
    with pytest.raises(CheckpointError, match="other data"):
        checked_checkpoint(run, "xyz")
    taken = checked_checkpoint(run, "abc")
    assert taken is not None
    assert taken.tokens == 100


def _resuming(checkpoint: Path, **changes: object) -> RunFile:
    content = {
        "run_id": "r",
        "stage": "sft",
        "output_dir": "/tmp/never-written",
        "resume_from": str(checkpoint),
        "model": {"source": "directory", "path": "/tmp/never-read"},
        "datasets": [{"path": "data.jsonl", "format": "alpaca"}],
        "resources": {"processes_per_node": 2},
    }
    return RunFile.model_validate({**content, **changes})
