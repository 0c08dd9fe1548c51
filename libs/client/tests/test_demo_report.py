import json
from pathlib import Path
from typing import Any

import pytest

from espalier_client.demo import report
from espalier_client.errors import ClientError


def point(step: int, attempt: int = 1, **values: float) -> dict[str, Any]:
    return {
        "step": step,
        "attempt": attempt,
        "values": {name.replace("__", "/"): value for name, value in values.items()},
    }


def test_base_and_tuned_are_the_first_and_the_last_measurement_of_a_file() -> None:
    points = [
        point(0, eval_heldout__loss=5.0, eval_heldout__perplexity=148.0),
        point(5, train__loss=4.0),
        point(9, eval_heldout__loss=3.0, eval_heldout__perplexity=20.0),
    ]
    assert report.evaluation(points, "heldout") == {
        "base": {"loss": 5.0, "perplexity": 148.0},
        "tuned": {"loss": 3.0, "perplexity": 20.0},
    }


def test_what_was_not_measured_is_not_made_up() -> None:
    with pytest.raises(ClientError, match="seen"):
        report.evaluation([point(0, eval_seen__loss=1.0, eval_seen__perplexity=3.0)], "seen")
    with pytest.raises(ClientError, match="speed"):
        report.mean_speed([point(1, train__loss=1.0)])


def test_the_curve_shows_both_sides_of_the_stop() -> None:
    points = [point(step, 1 if step <= 5 else 2, train__loss=float(step)) for step in range(1, 11)]
    assert report.curve(points, around=5) == [
        (3, 1, 3.0),
        (4, 1, 4.0),
        (5, 1, 5.0),
        (6, 2, 6.0),
        (7, 2, 7.0),
        (8, 2, 8.0),
    ]


def test_the_result_file_has_the_promised_form(tmp_path: Path) -> None:
    values = {"loss": 1.0, "perplexity": 2.7, "rouge_l": 0.5}
    result = report.Result(
        heldout={"base": values, "tuned": values},
        seen={"base": values, "tuned": values},
        resume={"stopped_at_step": 5, "resumed_from_step": 5},
        runs=["a", "b"],
        tokens_per_second={"pt": 1.0, "sft": 2.0},
        seconds={"setup": 1.0, "start": 1.0, "pt": 1.0, "sft": 1.0, "deploy": 1.0, "total": 5.004},
    )
    result.write(tmp_path / "demo" / "result.json")
    kept = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert set(kept) == {"heldout", "seen", "resume", "runs", "tokens_per_second", "seconds"}
    assert set(kept["seconds"]) == {"setup", "start", "pt", "sft", "deploy", "total"}
    assert kept["seconds"]["total"] == 5.0
