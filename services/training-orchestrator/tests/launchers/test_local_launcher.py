"""What only the local launcher has: processes, locks, and crash points between every two steps of a submit."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier_training_orchestrator.launchers import lock, open_launcher
from espalier_training_orchestrator.launchers.directory import LaunchDirectory, read_submission
from espalier_training_orchestrator.launchers.errors import LaunchDiskFull, LaunchFailed
from espalier_training_orchestrator.launchers.process import identify
from espalier_training_orchestrator.spec import Phase, WorkKind

NAME = "run-1-a1"


class Crash(BaseException):
    """The orchestrator is killed here."""


@pytest.mark.parametrize("step", ["before the intent", "after the intent", "after the start"])
def test_a_crash_at_any_point_of_submit_starts_it_exactly_once_in_the_end(
    local_world: Any, spec_for: Any, awaited: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    record, records = LaunchDirectory.record, iter(["intent", "process id"])

    def crashing(self: LaunchDirectory, submission: Any) -> None:
        which = next(records, "later")
        if step == "after the intent" and which == "intent":
            record(self, submission)
            raise Crash
        if (step, which) in (("before the intent", "intent"), ("after the start", "process id")):
            raise Crash
        record(self, submission)

    monkeypatch.setattr(LaunchDirectory, "record", crashing)
    spec = spec_for(local_world.directory)
    with pytest.raises(Crash):
        local_world.launcher.submit(spec)
    local_world.reopen()
    if step != "after the start":
        assert local_world.launcher.observe(NAME, spec.directory) is None
    local_world.launcher.submit(spec)
    awaited(local_world, NAME, Phase.RUNNING)
    local_world.launcher.cancel(NAME, spec.directory, now=False)
    assert awaited(local_world, NAME, Phase.STOPPED).exit_code == 83
    assert local_world.starts() == 1


def test_a_runner_that_died_before_its_id_was_written_down_is_not_started_again(
    local_world: Any, spec_for: Any, awaited: Any, eventually: Any
) -> None:
    spec = spec_for(local_world.directory)
    local_world.launcher.submit(spec)
    awaited(local_world, NAME, Phase.RUNNING)
    place = LaunchDirectory(spec.directory, spec.kind)
    submission = read_submission(spec.directory)
    assert submission is not None
    place.record(replace(submission, pid=None, ticks=None, started=None))
    local_world.reopen()
    local_world.launcher.cancel(NAME, spec.directory, now=True)
    assert awaited(local_world, NAME, Phase.STOPPED)
    local_world.launcher.submit(spec)
    assert local_world.starts() == 1


def test_many_submitting_at_once_start_one(local_world: Any, spec_for: Any, awaited: Any) -> None:
    spec = spec_for(local_world.directory)
    threads = [threading.Thread(target=open_launcher("local").submit, args=(spec,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    awaited(local_world, NAME, Phase.RUNNING)
    local_world.finish({"exit_code": 0})
    awaited(local_world, NAME, Phase.SUCCEEDED)
    assert local_world.starts() == 1


def test_the_launch_outlives_the_process_that_submitted_it(local_world: Any, spec_for: Any, awaited: Any) -> None:
    program = (
        "import sys, os, signal\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from conftest import make_spec\n"
        "from espalier_training_orchestrator.launchers import open_launcher\n"
        "from pathlib import Path\n"
        "open_launcher('local').submit(make_spec(Path(sys.argv[2])))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(local_world.directory)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    seen = awaited(local_world, NAME, Phase.RUNNING)
    assert seen.started_at is not None
    local_world.launcher.submit(spec_for(local_world.directory))
    local_world.finish({"exit_code": 0})
    assert awaited(local_world, NAME, Phase.SUCCEEDED)
    assert local_world.starts() == 1


def test_a_killed_runner_is_told_by_the_signal(local_world: Any, spec_for: Any, awaited: Any, eventually: Any) -> None:
    local_world.launcher.submit(spec_for(local_world.directory))
    awaited(local_world, NAME, Phase.RUNNING)
    submission = read_submission(local_world.directory)
    assert submission is not None
    assert submission.pid is not None
    os.kill(submission.pid, signal.SIGKILL)
    awaited(local_world, NAME, Phase.FAILED)

    def told() -> bool:
        message: str = local_world.launcher.observe(NAME, str(local_world.directory)).message
        return message == "The process was killed (SIGKILL)."

    assert eventually(told)
    assert identify(submission.pid) is None  # no zombie stays


def test_as_long_as_one_rank_lives_the_attempt_is_not_over(
    local_world: Any, spec_for: Any, awaited: Any, eventually: Any
) -> None:
    program = (
        "import os, subprocess, sys\n"
        "fd = int(os.environ['ESPALIER_LOCK_FD'])\n"
        "rank = subprocess.Popen(['sleep', '1000'], pass_fds=(fd,), process_group=0)\n"
        "open('rank', 'w').write(str(rank.pid))\n"
        "open('logs/rank-0.log', 'w').close()\n"
        "os._exit(1)\n"
    )
    spec = spec_for(local_world.directory, command=(sys.executable, "-I", "-c", program))
    local_world.launcher.submit(spec)
    awaited(local_world, NAME, Phase.RUNNING)
    submission = read_submission(spec.directory)
    assert submission is not None
    assert submission.identity is not None
    eventually(lambda: not submission.identity.is_alive)
    assert local_world.launcher.observe(NAME, spec.directory).phase is Phase.RUNNING
    local_world.launcher.cancel(NAME, spec.directory, now=True)
    awaited(local_world, NAME, Phase.STOPPED)
    assert identify(int((local_world.directory / "rank").read_text())) is None


def test_an_adopted_server_without_a_known_id_can_be_ended(local_world: Any, spec_for: Any, awaited: Any) -> None:
    spec = spec_for(local_world.directory, WorkKind.SERVER)
    local_world.launcher.submit(spec)
    local_world.become_ready()
    awaited(local_world, spec.name, Phase.READY)
    submission = read_submission(spec.directory)
    assert submission is not None
    LaunchDirectory(spec.directory, spec.kind).record(replace(submission, pid=None, ticks=None))
    assert lock.holders(local_world.directory / "server.lock") == [submission.pid]
    local_world.launcher.cancel(spec.name, spec.directory, now=False)
    (local_world.directory / "submitted.json").write_text(json.dumps({**vars(submission)}))
    assert awaited(local_world, spec.name, Phase.STOPPED)


def test_a_reused_process_id_is_never_signalled(local_world: Any, spec_for: Any, awaited: Any) -> None:
    spec = spec_for(local_world.directory)
    local_world.launcher.submit(spec)
    awaited(local_world, NAME, Phase.RUNNING)
    submission = read_submission(spec.directory)
    assert submission is not None
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        place = LaunchDirectory(spec.directory, spec.kind)
        place.record(replace(submission, pid=stranger.pid, ticks=1))
        local_world.launcher.cancel(NAME, spec.directory, now=False)
        assert stranger.poll() is None
        stranger.kill()
    place.record(submission)


def test_files_are_private_and_only_a_minimal_environment_travels(
    local_world: Any, spec_for: Any, awaited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPALIER_SERVICE_SECRET", "do not tell")
    program = "import json, os; json.dump(dict(os.environ), open('environment', 'w'))"
    spec = spec_for(local_world.directory, command=(sys.executable, "-I", "-c", program))
    local_world.launcher.submit(spec)
    seen = awaited(local_world, NAME, Phase.FAILED)
    assert seen.reason == "PROCESS_DIED"
    environment = json.loads((local_world.directory / "environment").read_text())
    assert environment["GREETING"] == "hello"
    assert "ESPALIER_SERVICE_SECRET" not in environment
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    token = local_world.directory / "secrets" / "attempt-token"
    assert token.read_text() == "t0ken"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_a_program_that_is_missing_is_told_in_a_sentence(local_world: Any, spec_for: Any) -> None:
    spec = spec_for(local_world.directory, command=("/no/such/program",))
    with pytest.raises(LaunchFailed, match="/no/such/program cannot be started: No such file or directory"):
        local_world.launcher.submit(spec)
    assert local_world.launcher.observe(NAME, spec.directory) is None


def test_a_full_disk_is_told_as_such(local_world: Any, spec_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LaunchDiskFull, match="no space left"):
        local_world.launcher.submit(spec_for(local_world.directory))


def test_a_server_that_ends_by_itself_says_its_last_line(
    local_world: Any, spec_for: Any, awaited: Any, eventually: Any
) -> None:
    command = (sys.executable, "-I", "-c", "raise SystemExit('error: the model has no config.json')")
    spec = spec_for(local_world.directory, WorkKind.SERVER, command=command)
    local_world.launcher.submit(spec)
    awaited(local_world, spec.name, Phase.FAILED)
    wanted = "The process ended with exit code 1: error: the model has no config.json"
    assert eventually(lambda: local_world.launcher.observe(spec.name, spec.directory).message == wanted)
