"""The runner as a process: what it starts, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

FOREVER = "time.sleep(1000)\n"


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_ranks_know_their_place_and_none_of_our_secrets(attempt: Any) -> None:
    attempt.prepare("json.dump(dict(os.environ), open(f'environment-{rank}', 'w'))\nsay('rank', rank, 'speaks')\n")
    result = attempt.finish(attempt.start(ESPALIER_NATS_URL="", UNRELATED="stays"))
    assert (result["exit_code"], result["reason"], result["signal"]) == (0, "COMPLETED", None)
    first, second = (json.loads((attempt.path / f"environment-{rank}").read_text()) for rank in (0, 1))
    assert (first["RANK"], second["RANK"], second["LOCAL_RANK"], second["WORLD_SIZE"]) == ("0", "1", "1", "2")
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert first["UNRELATED"] == "stays"
    assert not [name for name in first if name.startswith("ESPALIER_") and name != "ESPALIER_FENCE"]
    assert [attempt.log(rank) for rank in (0, 1)] == ["rank 0 speaks\n", "rank 1 speaks\n"]
    assert "starting 2 ranks" in attempt.log(-1)


def test_a_failed_rank_ends_all_and_its_sentence_is_the_cause(attempt: Any) -> None:
    attempt.prepare(
        "open(f'pid-{rank}', 'w').write(str(os.getpid()))\n"
        "wait_for('pid-0')\n"
        "if rank == 1:\n"
        "    say('Traceback (most recent call last):\\n  File x\\nValueError: no')\n"
        "    sys.exit('error: the dataset a.jsonl has no row')\n" + FOREVER
    )
    result = attempt.finish(attempt.start())
    assert (result["exit_code"], result["message"]) == (1, "rank 1: the dataset a.jsonl has no row")
    assert result["log_tail"][-1] == "error: the dataset a.jsonl has no row"
    assert is_gone(int((attempt.path / "pid-0").read_text()))


@pytest.mark.parametrize(
    ("program", "exit_code", "message"),
    [
        ("sys.stderr.write('error: cutoff_len is 0\\n'); sys.exit(78)", 78, "cutoff_len is 0"),
        ("sys.exit(75)", 75, "rank 1: it ended with exit code 75 and said nothing"),
        ("raise OSError(28, 'No space left on device')", 75, "the disk is full"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139, "rank 1 was ended by a signal (SIGSEGV)"),
        ("raise MemoryError", 137, "rank 1 ran out of memory: MemoryError"),
        ("{}['key']", 1, "rank 1: KeyError: 'key'"),
    ],
)
def test_the_exit_code_says_what_kind_of_failure_it_was(
    attempt: Any, program: str, exit_code: int, message: str
) -> None:
    attempt.prepare(f"if rank == 1:\n    {program}\n" + FOREVER)
    result = attempt.finish(attempt.start())
    assert result["exit_code"] == exit_code
    assert result["message"].startswith(message)


async def test_the_time_of_the_lock_is_the_last_sign_of_life(attempt: Any, eventually: Any) -> None:
    attempt.prepare("say(os.getpid())\n" + FOREVER)
    runner = attempt.start()
    await eventually(lambda: attempt.log(1))
    lock = attempt.path / "runner.lock"
    os.utime(lock, (0, 0))
    await eventually(lambda: lock.stat().st_mtime > 0)
    runner.kill()
    runner.wait()
    assert lock.stat().st_mtime > 0


async def test_a_killed_rank_is_told_as_such(attempt: Any, eventually: Any) -> None:
    attempt.prepare("say(os.getpid())\n" + FOREVER)
    runner = attempt.start()
    await eventually(lambda: attempt.log(1))
    os.kill(int(attempt.log(1)), signal.SIGKILL)
    result = attempt.finish(runner)
    assert result["exit_code"] == 137
    assert result["signal"] == "SIGKILL"
    assert result["message"] == "rank 1 was killed (SIGKILL); out of memory or killed by hand"


async def test_no_rank_outlives_the_runner(attempt: Any, eventually: Any) -> None:
    attempt.prepare("say(os.getpid())\n" + FOREVER)
    runner = attempt.start()
    pids = [int(await eventually(lambda rank=rank: attempt.log(rank))) for rank in (0, 1)]
    runner.kill()
    await eventually(lambda: all(is_gone(pid) for pid in pids))
    assert not (attempt.path / "result.json").exists()


async def test_a_second_runner_touches_nothing(attempt: Any, eventually: Any) -> None:
    attempt.prepare("open('starts', 'a').write('x')\nwait_for('finish')\n")
    first = attempt.start()
    await eventually(lambda: (attempt.path / "starts").exists() and (attempt.path / "starts").read_text() == "xx")
    lock = (attempt.path / "runner.lock").read_text()
    assert json.loads(lock)["pid"] == first.pid
    assert attempt.start().wait(120) == 75
    assert (attempt.path / "runner.lock").read_text() == lock
    assert not (attempt.path / "result.json").exists()
    (attempt.path / "finish").touch()
    assert attempt.finish(first)["exit_code"] == 0
    assert (attempt.path / "starts").read_text() == "xx"


def test_an_attempt_that_has_ended_is_not_run_again(attempt: Any) -> None:
    attempt.prepare("open('starts', 'a').write('x')\nsys.exit(78)\n")
    before = attempt.finish(attempt.start())
    starts = (attempt.path / "starts").read_text()
    assert attempt.finish(attempt.start()) == before
    assert (attempt.path / "starts").read_text() == starts


async def test_sigterm_stops_with_a_save_and_repeating_it_at_once_changes_nothing(
    attempt: Any, eventually: Any
) -> None:
    attempt.prepare(
        "say('up')\nwait_for('stop')\nif rank == 0: save(7)\nwait_for('../../checkpoints/step-7')\nsys.exit(83)\n"
    )
    runner = attempt.start()
    await eventually(lambda: attempt.log(0) and attempt.log(1))
    for _ in range(3):
        runner.terminate()
    result = attempt.finish(runner)
    assert (attempt.path / "stop").read_text() == "save"
    assert (result["exit_code"], result["reason"]) == (83, "STOPPED_BY_USER")
    assert result["checkpoint"] == str(attempt.run / "checkpoints" / "step-7")


async def test_where_sigterm_means_preemption_the_code_says_so(attempt: Any, eventually: Any) -> None:
    attempt.prepare(
        "say('up')\nwait_for('stop')\nif rank == 0: save(7)\nwait_for('../../checkpoints/step-7')\nsys.exit(83)\n"
    )
    runner = attempt.start(ESPALIER_SIGTERM_MEANS="preemption")
    await eventually(lambda: attempt.log(0))
    runner.terminate()
    assert attempt.finish(runner)["reason"] == "PREEMPTED"


@pytest.mark.parametrize("deaf", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
async def test_ranks_that_do_not_stop_in_time_are_killed(attempt: Any, eventually: Any, deaf: str) -> None:
    attempt.prepare(deaf + "say('up')\n" + FOREVER)
    runner = attempt.start(ESPALIER_GRACE_SECONDS="0.5")
    await eventually(lambda: attempt.log(0) and attempt.log(1))
    runner.terminate()
    result = attempt.finish(runner)
    assert (result["exit_code"], result["reason"]) == (85, "STOPPED_WITHOUT_CHECKPOINT")


async def test_a_crash_while_stopping_is_a_crash(attempt: Any, eventually: Any) -> None:
    attempt.prepare("say('up')\nwait_for('stop')\nsys.exit('error: cannot save')\n")
    runner = attempt.start()
    await eventually(lambda: attempt.log(0) and attempt.log(1))
    runner.terminate()
    result = attempt.finish(runner)
    assert result["exit_code"] == 1
    assert result["message"].endswith("cannot save")


@pytest.mark.parametrize(
    ("run_file", "message"),
    [
        ({"attempt": 0}, "attempt is 0"),
        ({"output_dir": "relative"}, "output_dir must be an absolute path"),
        ({"resources": {"nodes": 2}}, "resources.nodes is more than 1"),
    ],
)
def test_a_run_file_that_cannot_be_run_is_refused(attempt: Any, run_file: dict[str, Any], message: str) -> None:
    attempt.prepare("", **run_file)
    result = attempt.finish(attempt.start())
    assert result["exit_code"] == 78
    assert message in result["message"]


def test_a_rank_program_that_is_missing_is_told(attempt: Any) -> None:
    attempt.prepare("")
    attempt.__class__ = type("Missing", (type(attempt),), {"rank_command": ["/no/such/program"]})
    result = attempt.finish(attempt.start())
    assert "/no/such/program cannot be started: No such file or directory" in result["message"]
