import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier_client.local import trainings

# A runner as `down` sees it: it holds the lock, and on SIGTERM saves and leaves its result.
RUNNER = """
import fcntl, json, signal, sys, time
from pathlib import Path
directory = Path(sys.argv[1])
lock = open(directory / "runner.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
def save(*_):
    if sys.argv[2] == "obedient":
        (directory / "result.json").write_text(json.dumps({"exit_code": 84, "step": 12, "checkpoint": "step-12"}))
        sys.exit(84)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def attempt(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    directory = tmp_path / "runs" / "run-1" / "attempts" / "1"
    directory.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(directory), request.param], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (directory / "submitted.json").write_text(json.dumps({"pid": process.pid}))
        try:
            yield tmp_path
        finally:
            process.kill()


@pytest.mark.parametrize("attempt", ["obedient"], indirect=True)
def test_a_training_is_found_by_its_lock_and_saves_when_asked(attempt: Path) -> None:
    runners = trainings.living_runners(attempt)
    assert [runner.name for runner in runners] == ["run-1"]
    ended = trainings.save_and_end(runners, seconds=120)
    assert "saved at step 12" in ended[0].message
    assert trainings.living_runners(attempt) == []


@pytest.mark.parametrize("attempt", ["deaf"], indirect=True)
def test_a_training_that_does_not_end_is_killed(attempt: Path) -> None:
    ended = trainings.save_and_end(trainings.living_runners(attempt), seconds=0.2)
    assert "killed" in ended[0].message
    assert all(trainings._wait(runner, time.monotonic() + 60) for runner in trainings.living_runners(attempt))


def test_a_lock_that_nobody_holds_is_no_training(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / "r" / "attempts" / "1" / "runner.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"pid": 1}')
    assert trainings.living_runners(tmp_path) == []
