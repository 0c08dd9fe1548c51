"""The reconciler: a run survives the death of anything, nothing is started twice, and every end says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from espalier.training_orchestrator.v1 import run_pb2
from espalier.training_orchestrator.v1 import run_service_pb2 as rpc
from espalier.training_orchestrator.v1 import telemetry_pb2 as runner_pb
from espalier_training_orchestrator.launchers.errors import LaunchFailed
from espalier_training_orchestrator.spec import Observation, Phase


def name_of(run: run_pb2.Run, attempt: int = 1) -> str:
    return f"run-{run.id}-a{attempt}"


def token_of(orchestrator: Any, run: run_pb2.Run, attempt: int = 1) -> str:
    return str(orchestrator.spec_of(run.id, attempt).files["token"])


async def register(orchestrator: Any, run: run_pb2.Run, attempt: int = 1) -> int:
    """The runner says that it is there."""
    name = name_of(run, attempt)
    orchestrator.launcher.seen[name] = Observation(phase=Phase.RUNNING)
    answer = await orchestrator.runner().RegisterAttempt(
        runner_pb.RegisterAttemptRequest(
            run_id=run.id, attempt=attempt, attempt_token=token_of(orchestrator, run, attempt), host="here", pid=1
        )
    )
    return int(answer.fence)


async def beat(orchestrator: Any, run: run_pb2.Run, fence: int, *, attempt: int = 1, step: int = 0) -> int:
    """The runner says how far it is and hears what is asked of it."""
    answer = await orchestrator.runner().Heartbeat(
        runner_pb.HeartbeatRequest(
            run_id=run.id,
            attempt=attempt,
            attempt_token=token_of(orchestrator, run, attempt),
            fence=fence,
            progress=run_pb2.Progress(step=step, total_steps=10, loss=2.5),
            checkpoints=[run_pb2.Checkpoint(step=step)] if step else [],
        )
    )
    return int(answer.command)


async def training(orchestrator: Any, **changes: Any) -> tuple[run_pb2.Run, int]:
    """A run whose first attempt trains, and the fence of its runner."""
    run = await orchestrator.queued_run(**changes)
    await orchestrator.tick(2)
    return run, await register(orchestrator, run)


async def attempts_of(orchestrator: Any, run: run_pb2.Run) -> list[run_pb2.Attempt]:
    return list((await orchestrator.runs().ListAttempts(rpc.ListAttemptsRequest(run_id=run.id))).attempts)


async def test_a_run_goes_from_the_queue_to_its_end(orchestrator: Any, checkpoint: Any) -> None:
    run, fence = await training(orchestrator)
    assert (await orchestrator.run_now(run.id)).state == run_pb2.RUN_STATE_RUNNING
    assert await beat(orchestrator, run, fence, step=3) == runner_pb.RUNNER_COMMAND_CONTINUE
    progress = (await orchestrator.run_now(run.id)).progress
    assert (progress.step, progress.total_steps, progress.loss) == (3, 10, 2.5)
    checkpoint(orchestrator.artifacts / "runs" / run.id, run.id, step=10, name="model")
    orchestrator.launcher.end(name_of(run), 0)
    await orchestrator.tick(2)
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason) == (run_pb2.RUN_STATE_SUCCEEDED, "COMPLETED")
    assert ended.HasField("end_time")
    assert orchestrator.launcher.forgotten == [name_of(run)]
    (attempt,) = await attempts_of(orchestrator, run)
    assert (attempt.exit_code, attempt.state) == (0, run_pb2.RUN_STATE_SUCCEEDED)


async def test_success_without_a_model_is_no_success(orchestrator: Any) -> None:
    run, _ = await training(orchestrator)
    orchestrator.launcher.end(name_of(run), 0)
    await orchestrator.tick()
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason) == (run_pb2.RUN_STATE_FAILED, "MODEL_MISSING")


async def test_a_stop_with_save_is_heard_by_heartbeat_and_resumed_from_its_checkpoint(
    orchestrator: Any, checkpoint: Any
) -> None:
    run, fence = await training(orchestrator)
    stopping = await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))
    assert stopping.state == run_pb2.RUN_STATE_STOPPING
    checkpoint(orchestrator.artifacts / "runs" / run.id, run.id, step=7)
    assert await beat(orchestrator, run, fence, step=7) == runner_pb.RUNNER_COMMAND_SAVE_AND_EXIT
    orchestrator.launcher.end(name_of(run), 83)
    await orchestrator.tick(2)
    stopped = await orchestrator.run_now(run.id)
    assert (stopped.state, stopped.reason, stopped.resumable) == (run_pb2.RUN_STATE_STOPPED, "STOPPED_BY_USER", True)
    await orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=run.id))
    await orchestrator.tick(2)
    spec = orchestrator.spec_of(run.id, 2)
    assert f"resume_from: {orchestrator.artifacts}/runs/{run.id}/checkpoints/step-7" in spec.files["run.yaml"]
    second = (await attempts_of(orchestrator, run))[1]
    assert second.resumed_from_step == 7
    assert not orchestrator.launcher.cancelled


async def test_a_runner_that_does_not_hear_a_stop_is_asked_by_signal_once(orchestrator: Any) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick(2)
    orchestrator.launcher.seen[name_of(run)] = Observation(phase=Phase.RUNNING)
    await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))
    await orchestrator.tick(3)
    assert orchestrator.launcher.cancelled == [(name_of(run), False)]


async def test_a_save_that_takes_too_long_is_ended_by_force_and_keeps_the_last_checkpoint(
    start: Any, checkpoint: Any
) -> None:
    orchestrator = await start(stop_save_seconds=0.001)
    run, fence = await training(orchestrator)
    checkpoint(orchestrator.artifacts / "runs" / run.id, run.id, step=5)
    await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))
    await beat(orchestrator, run, fence, step=5)
    await orchestrator.tick(4)
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason, ended.resumable) == (run_pb2.RUN_STATE_FAILED, "STOP_TIMEOUT", True)
    assert (name_of(run), True) in orchestrator.launcher.cancelled


async def test_a_stop_without_saving_kills_what_does_not_end_by_itself(start: Any) -> None:
    orchestrator = await start(stop_now_seconds=0.001)
    run, fence = await training(orchestrator)
    await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id, mode=run_pb2.STOP_MODE_NOW))
    assert await beat(orchestrator, run, fence) == runner_pb.RUNNER_COMMAND_DISCARD_AND_EXIT
    await orchestrator.tick(3)
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason) == (run_pb2.RUN_STATE_STOPPED, "STOPPED_WITHOUT_CHECKPOINT")


async def test_a_process_that_died_fails_its_run_with_the_last_lines_of_its_log(orchestrator: Any) -> None:
    run, _ = await training(orchestrator)
    orchestrator.launcher.die(name_of(run))
    await orchestrator.tick()
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason, ended.resumable) == (run_pb2.RUN_STATE_FAILED, "PROCESS_DIED", False)
    (attempt,) = await attempts_of(orchestrator, run)
    assert list(attempt.log_tail) == ["last words"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=run.id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_launch_that_fails_fails_the_run_with_its_sentence(orchestrator: Any) -> None:
    run = await orchestrator.queued_run()
    orchestrator.launcher.fail_submit = LaunchFailed("python is not there.")
    await orchestrator.tick(2)
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason, ended.message) == (
        run_pb2.RUN_STATE_FAILED,
        "LAUNCH_FAILED",
        "python is not there.",
    )


async def test_an_orchestrator_killed_between_intent_and_launch_launches_once_with_the_same_token(
    orchestrator: Any, start: Any
) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick()  # the attempt is written down, and then the process dies
    assert not orchestrator.launcher.started
    again = await start()
    await again.tick()
    assert orchestrator.launcher.started == [name_of(run)]
    third = await start()
    await third.tick(2)
    assert orchestrator.launcher.started == [name_of(run)]
    assert await register(third, run) == 1


async def test_an_orchestrator_killed_right_after_the_launch_launches_no_second_time(
    orchestrator: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick()
    submit = orchestrator.launcher.submit

    def submit_and_die(spec: Any) -> None:
        submit(spec)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(orchestrator.launcher, "submit", submit_and_die)
        with pytest.raises(KeyboardInterrupt):
            orchestrator.assembly.reconciler.tick()
    again = await start()
    await again.tick(2)
    assert orchestrator.launcher.started == [name_of(run)]
    assert await register(again, run) == 1


async def test_an_orchestrator_killed_while_it_gathers_gathers_again_and_doubles_nothing(
    orchestrator: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = await training(orchestrator)
    directory = Path(orchestrator.spec_of(run.id).directory)
    line = {"step": 1, "time": 1e9, "epoch": 0.1, "values": {"train/loss": 3.0}}
    (directory / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    orchestrator.launcher.logs[name_of(run), 0] = b"one\ntwo\n"
    orchestrator.launcher.die(name_of(run))
    with monkeypatch.context() as patch:
        patch.setattr(orchestrator.assembly.reconciler, "_settle", _die)
        with pytest.raises(KeyboardInterrupt):
            orchestrator.assembly.reconciler.tick()
    assert (await orchestrator.run_now(run.id)).state == run_pb2.RUN_STATE_RUNNING
    again = await start()
    await again.tick(2)
    assert (await again.run_now(run.id)).state == run_pb2.RUN_STATE_FAILED
    assert len((await again.runs().ListMetrics(rpc.ListMetricsRequest(run_id=run.id))).points) == 1
    assert (await again.runs().ReadLogs(rpc.ReadLogsRequest(run_id=run.id))).text == "one\ntwo\n"
    assert len(await attempts_of(again, run)) == 1


async def test_bytes_that_no_database_can_hold_do_not_keep_a_run_from_its_end(orchestrator: Any) -> None:
    run, _ = await training(orchestrator)
    directory = Path(orchestrator.spec_of(run.id).directory)
    line = {"step": 1, "time": 1e9, "values": {"odd\x00\ud800": 1.0}}
    (directory / "metrics.jsonl").write_text(json.dumps(line) + "\n" + "no JSON\n" + '{"step": 1e400}\n')
    orchestrator.launcher.logs[name_of(run), 0] = b"\x00\xff\n"
    orchestrator.launcher.seen[name_of(run)] = Observation(
        phase=Phase.FAILED, reason="CRASHED", message="It said \x00 and \ud800.", log_tail=("tail \x00", "\ud800")
    )
    await orchestrator.tick()
    ended = await orchestrator.run_now(run.id)
    assert (ended.state, ended.reason) == (run_pb2.RUN_STATE_FAILED, "CRASHED")
    points = (await orchestrator.runs().ListMetrics(rpc.ListMetricsRequest(run_id=run.id))).points
    assert len(points) == 1


async def test_an_attempt_that_vanished_is_lost_and_keeps_no_other_from_going_on(orchestrator: Any) -> None:
    first, _ = await training(orchestrator)
    second, _ = await training(orchestrator)
    orchestrator.launcher.seen[name_of(first)] = None  # never submitted, says the launcher, though it has registered
    orchestrator.launcher.specs[name_of(first)] = None
    orchestrator.launcher.die(name_of(second))
    await orchestrator.tick()
    lost = await orchestrator.run_now(first.id)
    assert (lost.state, lost.reason) == (run_pb2.RUN_STATE_FAILED, "ATTEMPT_LOST")
    assert (await orchestrator.run_now(second.id)).state == run_pb2.RUN_STATE_FAILED


async def test_a_run_that_trained_through_the_death_of_the_orchestrator_is_adopted(
    orchestrator: Any, start: Any
) -> None:
    run, fence = await training(orchestrator)
    again = await start()
    await again.tick()
    assert await beat(again, run, fence, step=4) == runner_pb.RUNNER_COMMAND_CONTINUE
    assert (await again.run_now(run.id)).progress.step == 4
    assert orchestrator.launcher.started == [name_of(run)]


async def test_a_run_that_ended_while_the_orchestrator_was_dead_is_settled_by_the_next(
    orchestrator: Any, start: Any
) -> None:
    run, _ = await training(orchestrator)
    orchestrator.launcher.end(name_of(run), 137)
    again = await start()
    await again.tick(2)
    assert (await again.run_now(run.id)).reason == "OUT_OF_MEMORY_OR_KILLED"


async def test_a_stop_before_the_launch_cancels_the_run_without_launching_it(orchestrator: Any) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick()
    await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))
    await orchestrator.tick()
    assert (await orchestrator.run_now(run.id)).state == run_pb2.RUN_STATE_CANCELLED
    assert not orchestrator.launcher.started


async def test_runs_wait_their_turn_and_say_what_for(orchestrator: Any) -> None:
    version_id = await orchestrator.text_version()
    three = run_pb2.Resources(processes_per_node=3)
    first = await orchestrator.queued_run(version_id=version_id, resources=three)
    second = await orchestrator.queued_run(version_id=version_id, resources=three)
    third = await orchestrator.queued_run(version_id=version_id)
    await orchestrator.tick(2)
    assert orchestrator.launcher.started == [name_of(first)]
    assert (await orchestrator.run_now(second.id)).message == "Waiting for 3 ranks, no run ahead."
    # One rank is free, but a small run does not overtake the large one.
    assert (await orchestrator.run_now(third.id)).message == "Waiting for 1 rank, 1 run ahead."
    orchestrator.launcher.die(name_of(first))
    await orchestrator.tick(2)
    assert orchestrator.launcher.started == [name_of(first), name_of(second), name_of(third)]


async def test_a_stale_fence_is_told_to_end(orchestrator: Any) -> None:
    run, old = await training(orchestrator)
    new = await register(orchestrator, run)
    assert new == old + 1
    assert await beat(orchestrator, run, old) == runner_pb.RUNNER_COMMAND_DISCARD_AND_EXIT
    assert await beat(orchestrator, run, new) == runner_pb.RUNNER_COMMAND_CONTINUE


async def test_a_wrong_attempt_token_is_refused(orchestrator: Any) -> None:
    run, fence = await training(orchestrator)
    for call in (
        orchestrator.runner().RegisterAttempt(
            runner_pb.RegisterAttemptRequest(run_id=run.id, attempt=1, attempt_token="guess")
        ),
        orchestrator.runner().Heartbeat(
            runner_pb.HeartbeatRequest(run_id=run.id, attempt=1, attempt_token="guess", fence=fence)
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(orchestrator: Any, checkpoint: Any) -> None:
    run, fence = await training(orchestrator)
    directory = orchestrator.artifacts / "runs" / run.id
    checkpoint(directory, run.id, step=4)
    newest: Path = checkpoint(directory, run.id, step=8)
    await beat(orchestrator, run, fence, step=8)
    orchestrator.launcher.die(name_of(run))
    await orchestrator.tick()
    (newest / "weights.bin").write_bytes(b"weights of step 9")
    await orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=run.id))
    await orchestrator.tick(2)
    assert (await attempts_of(orchestrator, run))[1].resumed_from_step == 4


async def test_what_the_bus_did_not_carry_is_gathered_from_the_files_at_the_end(orchestrator: Any) -> None:
    run, _ = await training(orchestrator)
    directory = Path(orchestrator.spec_of(run.id).directory)
    lines = [
        {"step": 1, "time": 1e9, "epoch": 0.1, "values": {"train/loss": 3.0}, "total_steps": 2},
        {"step": 2, "time": 1e9, "epoch": 0.2, "values": {"train/loss": "NaN"}, "total_steps": 2},
        {"step": 2, "time": 1e9, "final": True, "values": {"eval/loss": 2.0}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "metrics.jsonl").write_text(text + '{"step": 3, "ti')
    orchestrator.launcher.logs[name_of(run), 0] = b"one\ntwo\n"
    orchestrator.launcher.end(name_of(run), 1, "It broke.")
    await orchestrator.tick()
    points = (await orchestrator.runs().ListMetrics(rpc.ListMetricsRequest(run_id=run.id))).points
    assert [point.step for point in points] == [1, 2]
    assert points[1].values["eval/loss"] == 2.0
    assert points[1].values["train/loss"] != points[1].values["train/loss"]  # NaN
    log = await orchestrator.runs().ReadLogs(rpc.ReadLogsRequest(run_id=run.id))
    assert (log.text, log.end, log.next_offset) == ("one\ntwo\n", True, 8)
    ended = await orchestrator.run_now(run.id)
    assert ended.message == "It broke. The last step was 2."


async def test_silence_of_a_living_attempt_is_only_told(start: Any) -> None:
    orchestrator = await start(heartbeat_silence_seconds=0.001)
    run, fence = await training(orchestrator)
    await orchestrator.tick()
    silent = await orchestrator.run_now(run.id)
    assert silent.state == run_pb2.RUN_STATE_RUNNING
    assert "has not reported" in silent.message
    await beat(orchestrator, run, fence)
    assert (await orchestrator.run_now(run.id)).message == "Training."


def _die(*_: Any) -> None:
    raise KeyboardInterrupt
