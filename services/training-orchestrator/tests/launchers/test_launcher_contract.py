"""What every launcher must do, whatever stands behind it."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_training_orchestrator.spec import Phase, WorkKind

NAME = "run-1-a1"
SERVER = "deployment-1"


def test_what_was_never_submitted_is_not_observed(world: Any) -> None:
    assert world.launcher.observe(NAME, str(world.directory)) is None
    world.launcher.cancel(NAME, str(world.directory), now=True)
    world.launcher.forget(NAME, str(world.directory))
    assert world.launcher.read_log(NAME, str(world.directory), rank=0, offset=0, limit=10) == b""


def test_an_attempt_runs_and_succeeds(world: Any, spec_for: Any, awaited: Any) -> None:
    world.launcher.submit(spec_for(world.directory))
    running = awaited(world, NAME, Phase.RUNNING)
    assert running.exit_code is None
    world.finish({"exit_code": 0, "message": "", "step": 20})
    seen = awaited(world, NAME, Phase.SUCCEEDED)
    assert (seen.exit_code, seen.reason, seen.message) == (0, "COMPLETED", "The training is complete.")
    assert seen.result["step"] == 20


def test_submitting_twice_starts_once(world: Any, spec_for: Any, awaited: Any) -> None:
    for _ in range(3):
        world.launcher.submit(spec_for(world.directory))
    awaited(world, NAME, Phase.RUNNING)
    world.reopen()
    world.launcher.submit(spec_for(world.directory))
    world.finish({"exit_code": 0})
    awaited(world, NAME, Phase.SUCCEEDED)
    world.launcher.submit(spec_for(world.directory))
    assert awaited(world, NAME, Phase.SUCCEEDED).exit_code == 0
    assert world.starts() == 1


def test_an_attempt_that_died_is_not_started_again_under_its_name(world: Any, spec_for: Any, awaited: Any) -> None:
    world.launcher.submit(spec_for(world.directory))
    awaited(world, NAME, Phase.RUNNING)
    world.die()
    seen = awaited(world, NAME, Phase.FAILED)
    assert seen.reason == "PROCESS_DIED"
    assert seen.message.endswith(".")
    assert seen.log_tail[-1] == "step 2"
    world.launcher.submit(spec_for(world.directory))
    world.launcher.forget(NAME, str(world.directory))
    assert awaited(world, NAME, Phase.FAILED).reason == "PROCESS_DIED"
    assert world.starts() == 1


def test_a_new_orchestrator_adopts_what_runs(world: Any, spec_for: Any, awaited: Any) -> None:
    world.launcher.submit(spec_for(world.directory))
    awaited(world, NAME, Phase.RUNNING)
    world.reopen()
    awaited(world, NAME, Phase.RUNNING)
    world.launcher.cancel(NAME, str(world.directory), now=False)
    assert awaited(world, NAME, Phase.STOPPED).reason == "STOPPED_BY_USER"


def test_asking_an_attempt_to_end_lets_it_save(world: Any, spec_for: Any, awaited: Any) -> None:
    world.launcher.submit(spec_for(world.directory))
    awaited(world, NAME, Phase.RUNNING)
    for _ in range(5):
        world.launcher.cancel(NAME, str(world.directory), now=False)
    seen = awaited(world, NAME, Phase.STOPPED)
    assert (seen.exit_code, seen.reason) == (83, "STOPPED_BY_USER")


def test_ending_an_attempt_at_once_is_a_stop_and_no_failure(world: Any, spec_for: Any, awaited: Any) -> None:
    world.launcher.submit(spec_for(world.directory))
    awaited(world, NAME, Phase.RUNNING)
    for _ in range(2):
        world.launcher.cancel(NAME, str(world.directory), now=True)
    assert awaited(world, NAME, Phase.STOPPED).reason == "STOPPED_WITHOUT_CHECKPOINT"
    world.launcher.cancel(NAME, str(world.directory), now=False)


@pytest.mark.parametrize(
    ("exit_code", "phase", "reason"),
    [
        (0, Phase.SUCCEEDED, "COMPLETED"),
        (75, Phase.FAILED, "INFRASTRUCTURE"),
        (78, Phase.FAILED, "INVALID_CONFIGURATION"),
        (83, Phase.STOPPED, "STOPPED_BY_USER"),
        (84, Phase.STOPPED, "PREEMPTED"),
        (85, Phase.STOPPED, "STOPPED_WITHOUT_CHECKPOINT"),
        (137, Phase.FAILED, "OUT_OF_MEMORY_OR_KILLED"),
        (1, Phase.FAILED, "CRASHED"),
        (139, Phase.FAILED, "CRASHED"),
        (None, Phase.FAILED, "RESULT_UNREADABLE"),
    ],
)
def test_exit_codes_mean_the_same_everywhere(
    world: Any, spec_for: Any, awaited: Any, exit_code: int | None, phase: Phase, reason: str
) -> None:
    world.launcher.submit(spec_for(world.directory))
    world.finish({"exit_code": exit_code, "message": "rank 1 said so", "log_tail": ["a", "b"]})
    seen = awaited(world, NAME, phase)
    assert (seen.exit_code, seen.reason, seen.log_tail[:2]) == (
        exit_code,
        reason,
        ("a", "b") if exit_code is not None else (),
    )


def test_logs_are_read_from_any_offset(world: Any, spec_for: Any, awaited: Any, eventually: Any) -> None:
    world.launcher.submit(spec_for(world.directory))
    awaited(world, NAME, Phase.RUNNING)

    def read(**place: int) -> bytes:
        data: bytes = world.launcher.read_log(NAME, str(world.directory), **place)
        return data

    assert eventually(lambda: read(rank=0, offset=0, limit=100) == b"step 1\nstep 2\n")
    assert read(rank=0, offset=5, limit=3) == b"1\ns"
    assert read(rank=0, offset=1000, limit=3) == b""
    assert read(rank=7, offset=0, limit=3) == b""
    assert eventually(lambda: read(rank=-1, offset=0, limit=100) == b"runner speaks\n")


def test_a_server_becomes_ready_and_ends_when_asked(world: Any, spec_for: Any, awaited: Any) -> None:
    world.launcher.submit(spec_for(world.directory, WorkKind.SERVER))
    assert awaited(world, SERVER, Phase.STARTING).base_url is None
    world.become_ready()
    ready = awaited(world, SERVER, Phase.READY)
    assert ready.base_url.startswith("http://127.0.0.1:")
    world.reopen()
    assert awaited(world, SERVER, Phase.READY).base_url == ready.base_url
    world.launcher.cancel(SERVER, str(world.directory), now=False)
    assert awaited(world, SERVER, Phase.STOPPED).reason == "STOPPED_BY_USER"


def test_the_name_of_a_server_that_was_forgotten_can_be_used_again(world: Any, spec_for: Any, awaited: Any) -> None:
    spec = spec_for(world.directory, WorkKind.SERVER)
    world.launcher.submit(spec)
    world.become_ready()
    awaited(world, SERVER, Phase.READY)
    world.launcher.forget(SERVER, str(world.directory))  # it lives: nothing happens
    awaited(world, SERVER, Phase.READY)
    world.die()
    assert awaited(world, SERVER, Phase.FAILED).reason == "PROCESS_DIED"
    world.launcher.forget(SERVER, str(world.directory))
    assert world.launcher.observe(SERVER, str(world.directory)) is None
    world.launcher.submit(spec)
    world.become_ready()
    awaited(world, SERVER, Phase.READY)
    assert world.starts() == 2


def test_the_plan_shows_what_would_run_and_no_secret(world: Any, spec_for: Any) -> None:
    spec = spec_for(world.directory)
    plan = world.launcher.plan(spec)
    assert plan["command"] == list(spec.command)
    assert plan["files"] == {"run.yaml": "attempt: 1\n", "secrets/attempt-token": "***"}
    assert world.launcher.observe(NAME, str(world.directory)) is None
