"""A real training through launcher, runner, trainer, bus and database: stopped with save, resumed, finished."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from espalier.training_orchestrator.v1 import run_pb2
from espalier.training_orchestrator.v1 import run_service_pb2 as rpc
from espalier_common.bus import Bus
from espalier_common.infra.processes import free_port
from espalier_training_orchestrator.events import telemetry_consumer
from espalier_training_orchestrator.launchers import open_launcher

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trainer_is_installed")]

SECONDS = 600.0
STEPS = 400  # some seconds, so that the stop finds it training


@pytest.fixture
def trainer_is_installed() -> None:
    pytest.importorskip("torch", reason="the trainer's packages are not installed")


@pytest.fixture
async def platform(start: Any, nats_url: str) -> AsyncIterator[Any]:
    """The service with all that its process runs."""
    address = f"127.0.0.1:{free_port()}"
    launcher = open_launcher("local", interpreter=sys.executable)
    bus = Bus(nats_url, name="orchestrator")
    await bus.start()
    orchestrator = await start(
        launcher=launcher, listen=address, runner_address=address, runner_nats_url=nats_url, heartbeat_seconds=0.2
    )
    parts = orchestrator.assembly
    consumer = telemetry_consumer(bus, orchestrator.database, parts.intake)
    tasks = [
        asyncio.create_task(parts.reconciler.run()),
        asyncio.create_task(consumer.run()),
    ]
    yield orchestrator
    await _end_everything(orchestrator, launcher)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await bus.close()


async def test_a_run_is_stopped_with_save_resumed_and_finished(platform: Any) -> None:
    run = await platform.queued_run(
        hyperparameters=run_pb2.Hyperparameters(
            max_steps=STEPS, logging_steps=1, per_device_train_batch_size=2, cutoff_len=32, learning_rate=1e-3
        ),
    )
    runs = platform.runs()
    await _follow(runs, run.id, until_step=3)
    await runs.StopRun(rpc.StopRunRequest(run_id=run.id))
    stopped = await _follow(runs, run.id)
    assert (stopped.state, stopped.reason) == (run_pb2.RUN_STATE_STOPPED, "STOPPED_BY_USER"), await _story(runs, run.id)
    assert stopped.resumable
    (saved,) = (await runs.ListCheckpoints(rpc.ListCheckpointsRequest(run_id=run.id))).checkpoints
    assert 3 <= saved.step < STEPS

    await runs.ResumeRun(rpc.ResumeRunRequest(run_id=run.id))
    finished = await _follow(runs, run.id)
    assert finished.state == run_pb2.RUN_STATE_SUCCEEDED, await _story(runs, run.id)
    first, second = (await runs.ListAttempts(rpc.ListAttemptsRequest(run_id=run.id))).attempts
    assert (first.exit_code, second.exit_code) == (83, 0)
    assert second.resumed_from_step == saved.step
    points = (await runs.ListMetrics(rpc.ListMetricsRequest(run_id=run.id))).points
    assert [point.step for point in points if "train/loss" in point.values] == list(range(1, STEPS + 1))
    assert {point.attempt for point in points if point.step > saved.step} == {2}
    assert finished.summary["train/loss"] > 0
    model = await runs.GetRunModel(rpc.GetRunModelRequest(run_id=run.id))
    assert (model.step, model.uri) == (STEPS, f"runs/{run.id}/model")
    assert model.parameters > 1000
    log = await runs.ReadLogs(rpc.ReadLogsRequest(run_id=run.id, attempt=1, limit=1_000_000))
    assert log.end
    assert "step 3/" in log.text


async def _follow(runs: Any, run_id: str, *, until_step: int = 0) -> run_pb2.Run:
    """The run when it has ended, or has reached the step."""
    call = runs.WatchRun(rpc.WatchRunRequest(run_id=run_id))
    last = run_pb2.Run()
    async with asyncio.timeout(SECONDS):
        async for response in call:
            last = response.run
            if until_step and max((point.step for point in response.points), default=0) >= until_step:
                call.cancel()
                break
    return last


async def _story(runs: Any, run_id: str) -> str:
    """What a person would look at when it went wrong."""
    events = (await runs.ListRunEvents(rpc.ListRunEventsRequest(run_id=run_id))).events
    log = await runs.ReadLogs(rpc.ReadLogsRequest(run_id=run_id, tail=True, limit=4000))
    own = await runs.ReadLogs(rpc.ReadLogsRequest(run_id=run_id, tail=True, rank=-1, limit=4000))
    return "\n".join([*(f"{event.reason}: {event.message}" for event in events), log.text, own.text])


async def _end_everything(orchestrator: Any, launcher: Any) -> None:
    """Nothing of a failed test goes on training."""
    runs = orchestrator.runs()
    for run in (await runs.ListRuns(rpc.ListRunsRequest())).runs:
        for attempt in (await runs.ListAttempts(rpc.ListAttemptsRequest(run_id=run.id))).attempts:
            directory = orchestrator.artifacts / "runs" / run.id / "attempts" / str(attempt.number)
            with suppress(OSError):
                launcher.cancel(f"run-{run.id}-a{attempt.number}", str(directory), now=True)
