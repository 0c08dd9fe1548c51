"""What runs for long is told to the ledger in quarters of an hour: none lost and none twice, whatever dies then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from espalier.auth.v1 import usage_pb2
from espalier.training_orchestrator.v1 import run_pb2
from espalier.training_orchestrator.v1 import telemetry_pb2 as runner_pb
from espalier.training_orchestrator.v1 import workload_pb2 as pb
from espalier_common.db import utc_now
from espalier_common.tables import outbox
from espalier_training_orchestrator.launchers.local import LocalLauncher
from espalier_training_orchestrator.occupancy import QUARTER, pieces, quarter_of
from espalier_training_orchestrator.runs.models import Attempt
from espalier_training_orchestrator.spec import Observation, Phase
from espalier_training_orchestrator.workloads.models import Workload

NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
READY = Observation(phase=Phase.READY, base_url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("minutes", "cuts"),
    [((0, 0), []), ((1, 14), [1, 14]), ((1, 15), [1, 15]), ((14, 46), [14, 15, 30, 45, 46]), ((15, 30), [15, 30])],
)
def test_time_is_cut_at_the_quarters_and_is_all_there(minutes: tuple[int, int], cuts: list[int]) -> None:
    found = pieces(NOON + minutes[0] * MINUTE, NOON + minutes[1] * MINUTE)
    moments = [NOON + cut * MINUTE for cut in cuts]
    assert [(piece.start, piece.end) for piece in found] == list(pairwise(moments))


def reports(orchestrator: Any) -> list[usage_pb2.UsageRecorded]:
    """What was told to the ledger but stored bytes, by the time of which it tells."""
    with orchestrator.database.transaction() as session:
        payloads = session.scalars(select(outbox.c.payload).where(outbox.c.subject == "espalier.auth.v1.UsageRecorded"))
        told = [usage_pb2.UsageRecorded.FromString(bytes(payload)) for payload in payloads]
    flow = [one for one in told if one.kind != usage_pb2.USAGE_KIND_STORED_BYTES]
    assert len({one.id for one in flow}) == len(flow)
    return sorted(flow, key=lambda one: one.time.ToDatetime())


def seconds(told: list[usage_pb2.UsageRecorded]) -> float:
    return sum(one.amount for one in told)


async def tick(orchestrator: Any, rounds: int = 1) -> None:
    for _ in range(rounds):
        await asyncio.to_thread(orchestrator.assembly.workload_reconciler.tick)


def put_model(orchestrator: Any) -> None:
    model: Path = orchestrator.artifacts / "runs" / "r" / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text("{}")


async def serve(orchestrator: Any, **fields: Any) -> str:
    """A server that was asked for and launched; gives the name of the launch."""
    put_model(orchestrator)
    wanted = {"name": "deployment-1", "model_uri": "runs/r/model", "served_model_name": "tuned", "owner_id": "ada"}
    await orchestrator.workloads().CreateWorkload(pb.CreateWorkloadRequest(workload=pb.Workload(**(wanted | fields))))
    await tick(orchestrator)
    name: str = orchestrator.launcher.started[-1]
    return name


async def end(orchestrator: Any) -> None:
    await orchestrator.workloads().DeleteWorkload(pb.DeleteWorkloadRequest(name="deployment-1"))


async def test_the_time_of_a_server_is_told_once_for_who_deployed_it_over_deaths_of_the_orchestrator(
    orchestrator: Any, start: Any
) -> None:
    name = await serve(orchestrator, device=run_pb2.DEVICE_CUDA)
    began = quarter_of(utc_now()) - 4 * QUARTER + 5 * MINUTE
    orchestrator.launcher.seen[name] = replace(READY, started_at=began)
    await tick(orchestrator)
    told = reports(orchestrator)
    assert [one.amount for one in told[:4]] == [600, 900, 900, 900]
    assert {(one.kind, one.user_id, one.model, one.source, one.reference, one.unfinished) for one in told} == {
        (usage_pb2.USAGE_KIND_GPU_SECONDS, "ada", "tuned", "serving", "deployment-1", True)
    }

    await tick(orchestrator, 2)
    await tick(await start(), 2)
    await end(orchestrator)
    await tick(orchestrator)  # it lives still, and is asked to end
    over = utc_now()
    orchestrator.launcher.seen[name] = Observation(phase=Phase.STOPPED, started_at=began, ended_at=over)
    await tick(orchestrator, 2)
    assert seconds(reports(orchestrator)) == pytest.approx((over - began).total_seconds(), abs=5)
    with orchestrator.database.transaction() as session:
        assert session.scalars(select(Workload)).all() == []


async def test_a_server_that_died_while_nobody_looked_counts_to_its_last_sign_of_life(
    orchestrator: Any, start: Any
) -> None:
    name = await serve(orchestrator)
    began, died = utc_now() - timedelta(hours=5), utc_now() - timedelta(hours=2)
    orchestrator.launcher.seen[name] = Observation(
        phase=Phase.FAILED, reason="PROCESS_DIED", started_at=began, ended_at=died
    )
    with orchestrator.database.transaction() as session:
        session.execute(update(Workload).values(seen_at=began + MINUTE))
    await tick(await start(), 3)
    assert {one.kind for one in reports(orchestrator)} == {usage_pb2.USAGE_KIND_CPU_SECONDS}
    assert seconds(reports(orchestrator)) == pytest.approx(3 * 3600, abs=0.01)

    # Launched anew, it is another launch: the time between is nobody's.
    again = await serve(orchestrator)
    assert again != name
    orchestrator.launcher.seen[again] = replace(READY, started_at=utc_now())
    await end(orchestrator)
    orchestrator.launcher.cancel(again, "", now=True)
    await tick(orchestrator, 2)
    assert seconds(reports(orchestrator)) < 3 * 3600 + 120


async def test_of_a_machine_that_is_gone_with_all_its_files_counts_what_was_seen(orchestrator: Any) -> None:
    name = await serve(orchestrator)
    seen_at = utc_now() - timedelta(hours=1)
    with orchestrator.database.transaction() as session:
        session.execute(update(Workload).values(seen_at=seen_at, used_until=seen_at - timedelta(minutes=20)))
    del orchestrator.launcher.seen[name]
    await tick(orchestrator, 2)
    assert seconds(reports(orchestrator)) == pytest.approx(20 * 60, abs=0.01)


async def test_a_server_that_ran_before_anybody_said_for_whom_counts_from_its_beginning(orchestrator: Any) -> None:
    name = await serve(orchestrator, owner_id="")
    began = utc_now() - timedelta(hours=1)
    orchestrator.launcher.seen[name] = replace(READY, started_at=began)
    await tick(orchestrator, 2)
    assert reports(orchestrator) == []
    with orchestrator.database.transaction() as session:
        session.execute(update(Workload).values(seen_at=None))
    await serve(orchestrator)
    assert (len(orchestrator.launcher.started), {one.user_id for one in reports(orchestrator)}) == (1, {"ada"})
    assert seconds(reports(orchestrator)) > 2700 - 1


async def running(orchestrator: Any) -> tuple[Any, str]:
    """A run that trains, and the name of its launch."""
    run = await orchestrator.queued_run()
    await orchestrator.tick(2)
    token = orchestrator.spec_of(run.id, 1).files["token"]
    request = runner_pb.RegisterAttemptRequest(run_id=run.id, attempt=1, attempt_token=token, host="here", pid=1)
    await orchestrator.runner().RegisterAttempt(request)
    return run, f"run-{run.id}-a1"


async def test_a_long_training_is_told_while_it_goes_on_and_ends_once(orchestrator: Any, start: Any) -> None:
    run, name = await running(orchestrator)
    began = quarter_of(utc_now()) - 2 * QUARTER
    counts = Path(orchestrator.spec_of(run.id, 1).directory) / "counts"
    counts.mkdir()
    (counts / "rank-0").write_text(f"{100:020d}")
    orchestrator.launcher.seen[name] = Observation(phase=Phase.RUNNING, started_at=began)
    await orchestrator.tick()
    await (await start()).tick()
    told = reports(orchestrator)
    assert all(one.unfinished and not one.reservation_id for one in told)
    assert seconds([one for one in told if one.kind == usage_pb2.USAGE_KIND_CPU_SECONDS]) >= 2 * 900

    (counts / "rank-0").write_text(f"{130:020d}")
    over = utc_now()
    orchestrator.launcher.seen[name] = Observation(
        phase=Phase.FAILED, reason="PROCESS_DIED", started_at=began, ended_at=over
    )
    await orchestrator.tick(2)
    told = reports(orchestrator)
    by_kind = {kind: seconds([one for one in told if one.kind == kind]) for kind in {one.kind for one in told}}
    assert by_kind[usage_pb2.USAGE_KIND_TOKENS_IN] == 130
    assert by_kind[usage_pb2.USAGE_KIND_CPU_SECONDS] == pytest.approx((over - began).total_seconds(), abs=0.01)
    ends = [one for one in told if not one.unfinished and one.kind == usage_pb2.USAGE_KIND_CPU_SECONDS]
    assert [(bool(one.reservation_id), one.succeeded, one.HasField("queue_wait")) for one in ends] == [
        (True, False, True)
    ]


@pytest.mark.parametrize("lost", [False, True], ids=["its files are there", "its files are gone"])
async def test_a_training_on_a_machine_that_was_off_for_a_day_counts_to_its_last_sign_of_life(
    orchestrator: Any, start: Any, lost: bool
) -> None:
    _, name = await running(orchestrator)
    began, beat = utc_now() - timedelta(hours=30), utc_now() - timedelta(hours=24)
    with orchestrator.database.transaction() as session:
        session.execute(update(Attempt).values(created_at=began, heartbeat_at=beat))
    died = Observation(phase=Phase.FAILED, started_at=began, ended_at=beat + timedelta(seconds=1))
    orchestrator.launcher.seen.pop(name)
    if not lost:
        orchestrator.launcher.seen[name] = died
    await (await start()).tick(2)

    told = reports(orchestrator)
    assert seconds(told) == pytest.approx(6 * 3600, abs=2)
    assert [one.succeeded for one in told if not one.unfinished] == [False]
    with orchestrator.database.transaction() as session:
        ended_at = session.scalars(select(Attempt.ended_at)).one()
    assert ended_at is not None
    assert abs(ended_at - beat) < timedelta(seconds=2)


def test_a_launch_tells_when_it_gave_its_last_sign_of_life(tmp_path: Path) -> None:
    import os

    (tmp_path / "submitted.json").write_text('{"name": "x", "kind": "attempt", "pid": 1, "ticks": 0, "started": 100.0}')
    for name, moment in (("runner.lock", 250), ("result.json", 200)):
        (tmp_path / name).write_text('{"exit_code": 0}')
        os.utime(tmp_path / name, (moment, moment))
        seen = LocalLauncher(interpreter="").observe("x", str(tmp_path))
        assert seen is not None
        assert (seen.started_at, seen.ended_at) == tuple(datetime.fromtimestamp(at, UTC) for at in (100, moment))
