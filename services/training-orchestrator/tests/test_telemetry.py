"""Telemetry over a real bus: stored once, shown live, in order, whatever comes twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from espalier.training_orchestrator.v1 import events_pb2, run_pb2
from espalier.training_orchestrator.v1 import run_service_pb2 as rpc
from espalier.training_orchestrator.v1.telemetry_pb2 import TelemetryBatch
from espalier_common.bus import EVENTS, Bus
from espalier_common.db import utc_now
from espalier_common.outbox import OutboxRelay
from espalier_training_orchestrator.events import telemetry_consumer
from espalier_training_orchestrator.telemetry import repository
from espalier_training_orchestrator.telemetry.repository import Measured


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    connection = Bus(nats_url, name="test")
    await connection.start()
    await asyncio.wait_for(connection.wait_connected(), 60)
    yield connection
    await connection.close()


@pytest.fixture
async def listening(orchestrator: Any, bus: Bus) -> AsyncIterator[Any]:
    """An orchestrator that consumes telemetry."""
    consumer = telemetry_consumer(bus, orchestrator.database, orchestrator.assembly.intake)
    task = asyncio.create_task(consumer.run())
    yield orchestrator
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def points(run_id: str, *steps: int, attempt: int = 1, name: str = "train/loss") -> TelemetryBatch:
    batch = TelemetryBatch(run_id=run_id, attempt=attempt, total_steps=10)
    for step in steps:
        point = batch.points.add(step=step, attempt=attempt, values={name: 10.0 * attempt + step})
        point.time.FromNanoseconds(time.time_ns())
    return batch


async def publish(bus: Bus, batch: TelemetryBatch, message_id: str, run_id: str = "") -> None:
    subject = f"{TelemetryBatch.DESCRIPTOR.full_name}.{run_id or batch.run_id}"
    await bus.publish(subject, batch.SerializeToString(), msg_id=message_id)


async def starting_run(orchestrator: Any) -> str:
    run = await orchestrator.queued_run()
    await orchestrator.tick(2)
    return str(run.id)


async def metrics_of(orchestrator: Any, run_id: str, **fields: Any) -> rpc.ListMetricsResponse:
    answer: rpc.ListMetricsResponse = await orchestrator.runs().ListMetrics(
        rpc.ListMetricsRequest(run_id=run_id, **fields)
    )
    return answer


async def test_points_arrive_once_whatever_is_published_twice(listening: Any, bus: Bus, eventually: Any) -> None:
    run_id = await starting_run(listening)
    await publish(bus, points(run_id, 1, 2), f"{run_id}/1/metrics/0")
    await publish(bus, points(run_id, 1, 2), f"{run_id}/1/metrics/0")
    # The same points in another message, as after a restart of the runner's publisher.
    await publish(bus, points(run_id, 2, 3), f"{run_id}/1/metrics/50")

    async def three() -> list[Any] | None:
        found = list((await metrics_of(listening, run_id)).points)
        return found if len(found) == 3 else None

    assert [point.step for point in await eventually(three)] == [1, 2, 3]
    progress = (await listening.run_now(run_id)).progress
    assert (progress.step, progress.total_steps, progress.loss) == (3, 10, 13.0)


async def test_a_batch_that_speaks_for_another_run_is_dropped(listening: Any, bus: Bus, eventually: Any) -> None:
    run_id = await starting_run(listening)
    await publish(bus, points(run_id, 1), "forged", run_id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002")
    await publish(bus, points(run_id, 2, attempt=9), "attempt that is not there")
    await bus.publish(f"{TelemetryBatch.DESCRIPTOR.full_name}.{run_id}", b"\xff\xff no proto", msg_id="noise")
    await publish(bus, points(run_id, 3), "true")

    async def arrived() -> bool:
        return bool((await metrics_of(listening, run_id)).points)

    await eventually(arrived)
    assert [point.step for point in (await metrics_of(listening, run_id)).points] == [3]


async def test_of_two_attempts_that_measured_one_step_the_later_stands(orchestrator: Any) -> None:
    run_id = await starting_run(orchestrator)
    _store(orchestrator, run_id, attempt=1, steps=(1, 2, 3, 4))
    _second_attempt(orchestrator, run_id)
    _store(orchestrator, run_id, attempt=2, steps=(3, 4, 5))
    found = (await metrics_of(orchestrator, run_id)).points
    assert [(point.step, point.attempt, point.values["train/loss"]) for point in found] == [
        (1, 1, 11.0), (2, 1, 12.0), (3, 2, 23.0), (4, 2, 24.0), (5, 2, 25.0),
    ]  # fmt: skip


async def test_the_summary_has_the_last_value_of_each_name(orchestrator: Any) -> None:
    run_id = str((await orchestrator.queued_run()).id)
    # As (step, attempt, values): a name may stand in several series, and a later attempt repeats steps.
    told = [
        (1, 1, {"train/loss": 1.0, "train/tokens": 10.0}),
        (2, 1, {"train/loss": 2.0}),
        (2, 1, {"eval/loss": 2.5}),
        (3, 1, {"train/loss": 3.0}),
        (3, 2, {"train/loss": "NaN"}),
    ]
    with orchestrator.database.transaction() as session:
        for step, attempt, values in told:
            repository.add_points(
                session, run_id, attempt, [Measured(step=step, epoch=0.0, at=utc_now(), values=values)]
            )
        assert repository.last_values(session, run_id) == {"train/loss": "NaN", "train/tokens": 10.0, "eval/loss": 2.5}


async def test_a_curve_is_read_in_pages_without_a_gap_or_a_repeat(orchestrator: Any) -> None:
    run_id = await starting_run(orchestrator)
    _store(orchestrator, run_id, attempt=1, steps=range(1, 26))
    steps: list[int] = []
    token = ""
    while True:
        page = await metrics_of(orchestrator, run_id, page_size=10, page_token=token)
        steps += [point.step for point in page.points]
        token = page.next_page_token
        if not token:
            break
    assert steps == list(range(1, 26))


async def test_a_watcher_sees_each_point_once_and_each_state_until_the_end(
    listening: Any, bus: Bus, eventually: Any
) -> None:
    run_id = await starting_run(listening)
    call = listening.runs().WatchRun(rpc.WatchRunRequest(run_id=run_id))
    seen: list[rpc.WatchRunResponse] = []

    async def follow() -> None:
        async for response in call:
            seen.append(response)

    following = asyncio.create_task(follow())
    for step in (1, 2, 3):
        await publish(bus, points(run_id, step), f"{run_id}/1/metrics/{step}")

    async def all_points() -> bool:
        return sum(len(response.points) for response in seen) == 3

    await eventually(all_points)
    listening.launcher.die(f"run-{run_id}-a1")
    await listening.tick()
    await asyncio.wait_for(following, 60)
    assert [point.step for response in seen for point in response.points] == [1, 2, 3]
    assert seen[-1].run.state == run_pb2.RUN_STATE_FAILED
    # Whoever comes back with the cursor of an answer gets what followed it, and nothing twice.
    cursor = next(response.cursor for response in seen if response.points)
    rest = [r async for r in listening.runs().WatchRun(rpc.WatchRunRequest(run_id=run_id, cursor=cursor))]
    first = len(next(response.points for response in seen if response.points))
    assert [point.step for response in rest for point in response.points] == [1, 2, 3][first:]


async def test_a_log_is_followed_by_byte_offset_until_its_attempt_has_ended(orchestrator: Any, eventually: Any) -> None:
    run_id = await starting_run(orchestrator)
    name = f"run-{run_id}-a1"
    whole = "grüße\n".encode() * 3 + b"last line without an end"
    _store_log(orchestrator, run_id, offset=0, data=whole[:10])
    call = orchestrator.runs().WatchLogs(rpc.WatchLogsRequest(run_id=run_id))
    chunks: list[rpc.LogChunk] = []

    async def follow() -> None:
        async for chunk in call:
            chunks.append(chunk)

    following = asyncio.create_task(follow())

    async def begun() -> bool:
        return bool(chunks)

    await eventually(begun)
    assert chunks[0].text == "grüße\n"  # whole lines only
    orchestrator.launcher.logs[name, 0] = whole
    orchestrator.launcher.die(name)
    await orchestrator.tick()
    await asyncio.wait_for(following, 60)
    assert "".join(chunk.text for chunk in chunks) == whole.decode()
    assert [chunk.next_offset for chunk in chunks[:-1]] == [chunk.offset for chunk in chunks[1:]]
    assert chunks[-1].end
    tail = await orchestrator.runs().ReadLogs(rpc.ReadLogsRequest(run_id=run_id, tail=True, limit=30))
    assert tail.text == "last line without an end"


async def test_each_change_of_state_leaves_as_an_event(orchestrator: Any, bus: Bus, eventually: Any) -> None:
    await bus.ensure_stream(EVENTS)
    subscription = await bus.live("espalier.training_orchestrator.v1.RunStateChanged")
    relay = asyncio.create_task(OutboxRelay(orchestrator.database, bus).run())
    run_id = await starting_run(orchestrator)
    orchestrator.launcher.die(f"run-{run_id}-a1")
    await orchestrator.tick()
    heard: list[tuple[int, int]] = []
    while len(heard) < 3:
        message = await subscription.next_msg(timeout=60)
        event = events_pb2.RunStateChanged.FromString(message.data)
        if event.run_id == run_id:
            heard.append((getattr(event, "from"), event.to))
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
    assert heard == [
        (run_pb2.RUN_STATE_UNSPECIFIED, run_pb2.RUN_STATE_QUEUED),
        (run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_STARTING),
        (run_pb2.RUN_STATE_STARTING, run_pb2.RUN_STATE_FAILED),
    ]


def _store(orchestrator: Any, run_id: str, *, attempt: int, steps: Any) -> None:
    from espalier_common.db import utc_now
    from espalier_training_orchestrator.telemetry.intake import Batch
    from espalier_training_orchestrator.telemetry.repository import Measured

    measured = [
        Measured(step=step, epoch=0.0, at=utc_now(), values={"train/loss": 10.0 * attempt + step}) for step in steps
    ]
    with orchestrator.database.transaction() as session:
        orchestrator.assembly.intake.take(session, [Batch(run_id=run_id, attempt=attempt, points=measured)])


def _store_log(orchestrator: Any, run_id: str, *, offset: int, data: bytes) -> None:
    from espalier_training_orchestrator.telemetry.intake import Batch
    from espalier_training_orchestrator.telemetry.repository import Printed

    with orchestrator.database.transaction() as session:
        batch = Batch(run_id=run_id, attempt=1, logs=[Printed(rank=0, offset=offset, data=data)])
        orchestrator.assembly.intake.take(session, [batch])


def _second_attempt(orchestrator: Any, run_id: str) -> None:
    from espalier_training_orchestrator.repository import runs

    with orchestrator.database.transaction() as session:
        run = runs.lock_run(session, run_id)
        assert run is not None
        run.attempt = 2
