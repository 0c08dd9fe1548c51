"""Telemetry over a real NATS server with the platform's own users and permissions."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

RUN_ID = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"


def log_of(batches: Any, rank: int) -> tuple[bytes, bool]:
    """The log as a consumer puts it together, and whether its end was told."""
    data, ended = b"", False
    for _, batch in batches:
        for chunk in batch.logs:
            if chunk.rank == rank:
                assert chunk.offset == len(data)
                data, ended = data + chunk.data, chunk.end
    return data, ended


async def test_metrics_and_logs_arrive_with_ids_made_of_offsets(attempt: Any, bus: Any) -> None:
    attempt.prepare(
        "say('hello from', rank)\n"
        "if rank == 0:\n"
        "    metric(1, **{'train/loss': 5.0})\n"
        "    metric(2, **{'train/loss': 'NaN'})\n"
        "sys.stdout.write('no line end')\n"
    )
    runner = attempt.start(ESPALIER_NATS_URL=bus.runner_url)
    await attempt.finished(runner)
    batches = await bus.batches()
    assert {batch.run_id for _, batch in batches} == {RUN_ID}
    ids = [message_id for message_id, _ in batches]
    assert len(set(ids)) == len(ids)
    assert f"{RUN_ID}/1/metrics/0" in ids
    assert f"{RUN_ID}/1/log-1/0" in ids
    points = [point for _, batch in batches for point in batch.points]
    assert [(point.step, point.attempt, point.epoch) for point in points] == [(1, 1, 0.1), (2, 1, 0.2)]
    assert points[0].values["train/loss"] == 5.0
    assert math.isnan(points[1].values["train/loss"])
    assert points[0].time.seconds == 1001
    assert max(batch.total_steps for _, batch in batches) == 10
    assert log_of(batches, 1) == (b"hello from 1\nno line end\n", True)
    assert b"starting 2 ranks" in log_of(batches, -1)[0]


async def test_nothing_is_lost_while_the_bus_is_away(attempt: Any, bus: Any, eventually: Any) -> None:
    attempt.prepare(
        "if rank == 0:\n"
        "    say('before'); metric(1)\n"
        "    wait_for('away')\n"
        "    say('during'); metric(2)\n"
        "    open('spoken', 'w').close()\n"
        "    wait_for('back')\n"
        "    say('after'); metric(3)\n"
    )
    runner = attempt.start(ESPALIER_NATS_URL=bus.runner_url)
    while log_of(await bus.batches(), 0)[0] != b"before\n":
        await asyncio.sleep(0.05)
    bus.server.stop()
    (attempt.path / "away").touch()
    await eventually((attempt.path / "spoken").exists)
    await eventually(lambda: "the message bus is away" in attempt.log(-1))
    bus.server.start()
    await eventually(lambda: "the message bus is back" in attempt.log(-1))
    (attempt.path / "back").touch()
    await attempt.finished(runner)
    batches = await bus.batches()
    assert log_of(batches, 0) == (b"before\nduring\nafter\n", True)
    assert [point.step for _, batch in batches for point in batch.points] == [1, 2, 3]


async def test_a_bus_that_never_comes_delays_the_end_by_seconds_only(attempt: Any) -> None:
    attempt.prepare("say('done')\n")
    started = time.monotonic()
    runner = attempt.start(ESPALIER_NATS_URL="nats://runner:secret@127.0.0.1:9")
    result = await attempt.finished(runner)
    assert result["exit_code"] == 0
    assert time.monotonic() - started < 60
    assert "secret" not in attempt.log(-1)


def memory_of(pid: int) -> tuple[int, str]:
    """Peak memory in KiB, and the files mapped."""
    status = Path(f"/proc/{pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return peak, Path(f"/proc/{pid}/maps").read_text()


async def test_the_runner_is_light(attempt: Any, bus: Any, orchestrator: Any, eventually: Any) -> None:
    attempt.prepare("say('up')\nwait_for('finish')\n")
    runner = attempt.start(ESPALIER_NATS_URL=bus.runner_url, ESPALIER_ORCHESTRATOR=orchestrator.address)
    await eventually(lambda: len(orchestrator.beats) > 5)
    peak, maps = memory_of(runner.pid)
    (attempt.path / "finish").touch()
    await attempt.finished(runner)
    assert peak < 60 << 10, f"{peak} KiB"
    assert "libtorch" not in maps
