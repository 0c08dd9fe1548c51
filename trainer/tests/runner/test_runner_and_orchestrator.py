"""What runner and orchestrator say to each other, over real gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from espalier.training_orchestrator.v1 import telemetry_pb2 as pb
from espalier_trainer.runner import supervisor
from espalier_trainer.runner.settings import read_plan, read_settings

RUN_ID = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
SAVE_WHEN_ASKED = (
    "say('up')\nwait_for('stop')\nif rank == 0: save(7)\nwait_for('../../checkpoints/step-7')\nsys.exit(83)\n"
)


async def test_it_registers_beats_and_hands_the_fence_to_the_ranks(
    attempt: Any, orchestrator: Any, eventually: Any
) -> None:
    attempt.prepare(
        "say('fence', os.environ['ESPALIER_FENCE'])\n"
        "if rank == 0:\n"
        "    for step in (2, 4): metric(step, **{'train/loss': 3.5, 'train/tokens_per_second': 100.0})\n"
        "    save(4)\n"
        "wait_for('finish')\n"
    )
    runner = attempt.start(ESPALIER_ORCHESTRATOR=orchestrator.address)
    beat = await eventually(lambda: next((beat for beat in orchestrator.beats if beat.checkpoints), None))
    (registration,) = orchestrator.registrations
    assert (registration.run_id, registration.attempt, registration.attempt_token) == (RUN_ID, 1, "attempt-token")
    assert registration.pid == runner.pid
    assert beat.fence == 7
    await eventually(lambda: orchestrator.beats[-1].progress.step == 4)
    progress = orchestrator.beats[-1].progress
    assert (progress.total_steps, progress.loss, progress.tokens_per_second) == (10, 3.5, 100.0)
    assert progress.eta.seconds == 6  # 6 steps to go, one a second by the metrics' own clock
    (checkpoint,) = beat.checkpoints
    directory = attempt.run / "checkpoints" / "step-4"
    assert (checkpoint.step, checkpoint.attempt, checkpoint.uri) == (4, 1, directory.as_uri())
    assert checkpoint.manifest_sha256 == hashlib.sha256((directory / "MANIFEST.json").read_bytes()).hexdigest()
    assert checkpoint.size_bytes > 100
    (attempt.path / "finish").touch()
    assert (await attempt.finished(runner))["step"] == 4
    assert [len(beat.checkpoints) for beat in orchestrator.beats].count(1) == 1  # acknowledged, so told once
    assert attempt.log(0) == "fence 7\n"


@pytest.mark.parametrize(
    ("command", "content", "exit_code"),
    [(pb.RUNNER_COMMAND_SAVE_AND_EXIT, "save", 83), (pb.RUNNER_COMMAND_DISCARD_AND_EXIT, "discard", 85)],
)
async def test_the_answer_to_a_heartbeat_stops_the_attempt(
    attempt: Any, orchestrator: Any, eventually: Any, command: pb.RunnerCommand.ValueType, content: str, exit_code: int
) -> None:
    leave = "wait_for('stop')\nsys.exit(85)\n" if content == "discard" else SAVE_WHEN_ASKED
    attempt.prepare("say('up')\n" + leave)
    runner = attempt.start(ESPALIER_ORCHESTRATOR=orchestrator.address)
    await eventually(lambda: attempt.log(0) and attempt.log(1))
    orchestrator.command = command
    result = await attempt.finished(runner)
    assert (attempt.path / "stop").read_text() == content
    assert result["exit_code"] == exit_code
    if exit_code == 83:
        assert any(checkpoint.step == 7 for beat in orchestrator.beats for checkpoint in beat.checkpoints)


async def test_a_wish_to_save_can_still_become_a_wish_to_discard(
    attempt: Any, orchestrator: Any, eventually: Any
) -> None:
    attempt.prepare(
        "say('up')\nwait_for('stop')\nwhile open('stop').read() != 'discard': time.sleep(0.01)\nsys.exit(85)\n"
    )
    runner = attempt.start(ESPALIER_ORCHESTRATOR=orchestrator.address)
    await eventually(lambda: attempt.log(0) and attempt.log(1))
    orchestrator.command = pb.RUNNER_COMMAND_SAVE_AND_EXIT
    await eventually((attempt.path / "stop").exists)
    orchestrator.command = pb.RUNNER_COMMAND_DISCARD_AND_EXIT
    assert (await attempt.finished(runner))["exit_code"] == 85


async def test_training_does_not_wait_for_an_orchestrator_that_is_away(
    attempt: Any, orchestrator: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await orchestrator.stop()
    attempt.prepare("say('up')\nwait_for('registered')\n")
    monkeypatch.setattr(supervisor, "REGISTER_SECONDS", 0.2)
    env = {
        "ESPALIER_RUN_DIR": str(attempt.path),
        "ESPALIER_ORCHESTRATOR": orchestrator.address,
        "ESPALIER_ATTEMPT_TOKEN_FILE": str(attempt.path / "token"),
    }
    lock = os.open(os.devnull, os.O_RDONLY)
    running = asyncio.create_task(
        supervisor.Supervisor(
            read_settings(env), read_plan(attempt.path / "run.yaml"), command=attempt.rank_command, lock=lock
        ).run()
    )
    await eventually(lambda: attempt.log(0) and attempt.log(1))
    assert not orchestrator.registrations
    await orchestrator.start()
    await eventually(lambda: orchestrator.beats)
    (attempt.path / "registered").touch()
    assert (await running).exit_code == 0
    os.close(lock)


async def test_it_goes_on_after_the_orchestrator_was_away(attempt: Any, orchestrator: Any, eventually: Any) -> None:
    attempt.prepare("if rank == 0:\n    metric(1)\n    wait_for('away')\n    save(3)\nwait_for('finish')\n")
    runner = attempt.start(ESPALIER_ORCHESTRATOR=orchestrator.address)
    await eventually(lambda: orchestrator.beats)
    await orchestrator.stop()
    (attempt.path / "away").touch()
    await eventually((Path(attempt.run) / "checkpoints" / "step-3").exists)
    before = len(orchestrator.beats)
    await orchestrator.start()
    await eventually(lambda: len(orchestrator.beats) > before)
    await eventually(lambda: any(beat.checkpoints for beat in orchestrator.beats[before:]))
    assert len(orchestrator.registrations) == 1  # its fence still holds
    (attempt.path / "finish").touch()
    assert (await attempt.finished(runner))["exit_code"] == 0


async def test_an_orchestrator_that_has_forgotten_it_is_told_again(
    attempt: Any, orchestrator: Any, eventually: Any
) -> None:
    attempt.prepare("wait_for('finish')\n")
    runner = attempt.start(ESPALIER_ORCHESTRATOR=orchestrator.address)
    await eventually(lambda: orchestrator.beats)
    orchestrator.forgetful = True
    await eventually(lambda: any(beat.fence == 8 for beat in orchestrator.beats))
    (attempt.path / "finish").touch()
    assert (await attempt.finished(runner))["exit_code"] == 0


async def test_a_refused_attempt_does_not_train(attempt: Any, orchestrator: Any) -> None:
    attempt.prepare("say('up')\n")
    orchestrator.refuse = grpc.StatusCode.FAILED_PRECONDITION
    runner = attempt.start(ESPALIER_ORCHESTRATOR=orchestrator.address)
    result = await attempt.finished(runner)
    assert (result["exit_code"], result["message"]) == (
        75,
        "The orchestrator refuses this attempt: attempt 1 is over",
    )
    assert not attempt.log(0)
