from pathlib import Path
from typing import Any

import pytest

from espalier_client.demo.earlier import Earlier
from espalier_client.demo.report import Result
from espalier_client.errors import NotFound

ASKED = {"device": "cpu", "base_model": None}
MEASURED = Result(
    heldout={"base": {"loss": 5.0}},
    seen={"base": {"loss": 5.0}},
    resume={"stopped_at_step": 3, "resumed_from_step": 3},
    runs=["a", "b"],
    tokens_per_second={"pt": 1.0},
    seconds={"total": 2.0},
)


class Runs:
    """The API as far as it is asked for runs."""

    def __init__(self, **states: str) -> None:
        self.states = states

    def get(self, path: str) -> dict[str, Any]:
        run_id = path.rpartition("/")[2]
        if run_id not in self.states:
            raise NotFound("no such run")
        return {"state": f"RUN_STATE_{self.states[run_id]}"}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    (tmp_path / "demo").mkdir()
    Earlier(tmp_path / "demo", asked=ASKED).keep(MEASURED)
    return tmp_path / "demo"


def test_what_was_measured_is_shown_again_while_its_runs_are_there(kept: Path) -> None:
    found = Earlier(kept, asked=ASKED).result(Runs(a="SUCCEEDED", b="SUCCEEDED"))  # type: ignore[arg-type]
    assert found == MEASURED


@pytest.mark.parametrize("runs", [Runs(a="SUCCEEDED"), Runs(a="SUCCEEDED", b="FAILED")])
def test_it_is_done_again_when_a_run_is_gone(kept: Path, runs: Runs) -> None:
    assert Earlier(kept, asked=ASKED).result(runs) is None  # type: ignore[arg-type]


def test_it_is_done_again_when_something_else_is_asked_for(kept: Path) -> None:
    runs = Runs(a="SUCCEEDED", b="SUCCEEDED")
    assert Earlier(kept, asked={**ASKED, "device": "cuda"}).result(runs) is None  # type: ignore[arg-type]


def test_it_is_done_when_nothing_is_kept(tmp_path: Path) -> None:
    assert Earlier(tmp_path, asked=ASKED).result(Runs()) is None  # type: ignore[arg-type]


def test_it_is_done_again_when_the_result_was_damaged(kept: Path) -> None:
    (kept / "result.json").write_text("{}", "utf-8")
    assert Earlier(kept, asked=ASKED).result(Runs()) is None  # type: ignore[arg-type]
