"""`kill -9` of any process at any time: `espalier up` again, and no run is lost, none runs twice."""

import os
import signal
from collections.abc import Iterator

import pytest
from platform_process import PROCESSES, Api, Platform, until
from recipes import pretraining

ENDLESS = 1_000_000
RUNNER, RANK = "espalier_trainer.runner", "espalier_trainer.train"


@pytest.fixture
def endless(trainer: Api, corpus: str) -> Iterator[str]:
    """A run that goes on until it is stopped, with a checkpoint now and then."""
    run = trainer.start("endless", pretraining(corpus, max_steps=ENDLESS, save_steps=25, save_total_limit=2))
    trainer.wait_for_step(run, 30)
    yield run
    if trainer.run(run)["state"] == "RUN_STATE_RUNNING":
        trainer.call("POST", f"/api/v1/training/runs/{run}:stop", {"mode": "STOP_MODE_NOW"})
        trainer.wait(run, "STOPPED", "FAILED")


def test_a_run_survives_the_death_of_every_process_of_the_platform(
    platform: Platform, trainer: Api, endless: str
) -> None:
    before = platform.pids(RUNNER)
    assert len(before) == 1
    for process in PROCESSES:
        platform.kill(process)
        platform.up()
        step = trainer.run(endless)["progress"]["step"]
        trainer.wait_for_step(endless, step + 5)
        assert platform.pids(RUNNER) == before, f"after the death of {process}"
    assert trainer.run(endless)["attempt"] == 1
    trainer.call("POST", f"/api/v1/training/runs/{endless}:stop", {"mode": "STOP_MODE_SAVE"})
    stopped = trainer.wait(endless, "STOPPED")
    steps = sorted(trainer.losses(endless))
    assert steps == list(range(1, stopped["progress"]["step"] + 1))


def test_a_killed_rank_fails_the_run_with_its_cause_and_keeps_the_checkpoint(
    platform: Platform, trainer: Api, endless: str
) -> None:
    os.kill(platform.pids(RANK)[0], signal.SIGKILL)
    failed = trainer.wait(endless, "FAILED")
    assert "SIGKILL" in failed["message"]
    assert failed["resumable"]
    attempt = trainer.get(f"/api/v1/training/runs/{endless}/attempts")["attempts"][0]
    assert attempt["log_tail"]


def test_a_killed_runner_takes_its_ranks_along_and_the_run_can_be_resumed(
    platform: Platform, trainer: Api, endless: str
) -> None:
    os.kill(platform.pids(RUNNER)[0], signal.SIGKILL)
    failed = trainer.wait(endless, "FAILED")
    assert failed["resumable"], failed["message"]
    until(lambda: True if not platform.pids(RANK) else None, what="the end of the ranks")
    trainer.call("POST", f"/api/v1/training/runs/{endless}:resume", {})
    trainer.wait_for_step(endless, failed["progress"]["step"] + 5)
    assert len(platform.pids(RUNNER)) == 1
