"""What runs and datasets use is held before it is used and told when it is over, whatever way it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import select

from espalier.auth.v1 import usage_pb2
from espalier.training_orchestrator.v1 import dataset_pb2, run_pb2
from espalier.training_orchestrator.v1 import run_service_pb2 as rpc
from espalier.training_orchestrator.v1 import telemetry_pb2 as runner_pb
from espalier_common.errors import ResourceExhausted
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox
from espalier_training_orchestrator import occupancy
from espalier_training_orchestrator.runs import accounts
from espalier_training_orchestrator.runs.holds import FIRST_SECONDS, HOLD_SECONDS, RENEW_SECONDS

RUN = {"CONCURRENT_RUNS": 1.0, "CPU_SECONDS": 0.0, "STORED_BYTES": 0.0}


@pytest.fixture(autouse=True)
def no_quarter_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock on the wall cuts no report of these tests in two; test_serving_use.py is about those that are cut."""
    monkeypatch.setattr(occupancy, "quarter_of", lambda moment: moment)
    monkeypatch.setattr(accounts, "quarter_of", lambda moment: moment - occupancy.QUARTER)


def reports(orchestrator: Any, *, stored: bool = False) -> list[usage_pb2.UsageRecorded]:
    """What was told to the ledger, oldest first; of stored bytes or of all else."""
    with orchestrator.database.transaction() as session:
        query = select(outbox.c.payload).where(outbox.c.subject == "espalier.auth.v1.UsageRecorded")
        payloads = session.scalars(query.order_by(outbox.c.sequence)).all()
    told = [usage_pb2.UsageRecorded.FromString(bytes(payload)) for payload in payloads]
    return [one for one in told if (one.kind == usage_pb2.USAGE_KIND_STORED_BYTES) is stored]


def held_by_runs(orchestrator: Any) -> list[str]:
    return [id for id, (_, amounts, _) in orchestrator.limits.held.items() if "CONCURRENT_RUNS" in amounts]


async def train_and_end(orchestrator: Any, run: Any, exit_code: int, *, attempt: int = 1) -> None:
    await orchestrator.tick(2)
    token = orchestrator.spec_of(run.id, attempt).files["token"]
    request = runner_pb.RegisterAttemptRequest(run_id=run.id, attempt=attempt, attempt_token=token, host="here", pid=1)
    await orchestrator.runner().RegisterAttempt(request)
    orchestrator.launcher.end(f"run-{run.id}-a{attempt}", exit_code)
    await orchestrator.tick()


def measure(orchestrator: Any, run: Any, attempt: int, tokens: dict[int, float | str]) -> None:
    """What the attempt has measured: all tokens of the run at these steps, and something else at the last."""
    told: list[tuple[int, dict[str, float | str]]] = [(step, {"train/tokens": count}) for step, count in tokens.items()]
    told.append((max(tokens), {"eval/loss": 2.0}))
    lines = [json.dumps({"step": step, "time": 1.0 + step, "values": values}) for step, values in told]
    directory = Path(orchestrator.spec_of(run.id, attempt).directory)
    (directory / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


async def test_a_run_holds_a_place_when_it_is_submitted_and_settles_its_seconds_at_the_end(
    orchestrator: Any, people: tuple[str, str]
) -> None:
    run = await orchestrator.queued_run()
    (reservation,) = held_by_runs(orchestrator)
    assert orchestrator.limits.held[reservation][:2] == (people[0], RUN)
    assert reports(orchestrator) == []

    await train_and_end(orchestrator, run, 1)

    (told,) = reports(orchestrator)
    ranks = run.spec.resources.processes_per_node or 1
    assert (told.kind, told.user_id, told.source, told.reference) == (
        usage_pb2.USAGE_KIND_CPU_SECONDS, people[0], "training", run.id,
    )  # fmt: skip
    assert told.reservation_id == reservation
    assert 0 < told.amount < 60 * ranks
    assert told.HasField("queue_wait")
    assert not told.succeeded


async def test_a_run_that_never_trained_gives_its_place_back_and_used_nothing(orchestrator: Any) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))

    (told,) = reports(orchestrator)
    assert (told.kind, told.amount, told.reservation_id) == (0, 0, held_by_runs(orchestrator)[0])


async def test_a_resumed_run_holds_a_place_anew_and_is_told_apart_from_its_first_attempt(
    orchestrator: Any, checkpoint: Any
) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick(2)
    checkpoint(orchestrator.artifacts / "runs" / run.id, run.id, step=5)
    await train_and_end(orchestrator, run, 75)
    for _ in range(2):
        await orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=run.id))
        await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))

    told = reports(orchestrator)
    assert [one.reservation_id for one in told] == held_by_runs(orchestrator)
    assert len({one.reservation_id for one in told}) == 3
    assert [bool(one.kind) for one in told] == [True, False, False]


async def test_each_attempt_tells_once_the_tokens_that_it_trained_on_itself(
    orchestrator: Any, checkpoint: Any, people: tuple[str, str]
) -> None:
    run = await orchestrator.queued_run()
    home = orchestrator.artifacts / "runs" / run.id
    await orchestrator.tick(2)
    measure(orchestrator, run, 1, {2: 100, 4: 200})
    # Saved when it stopped, between two measurements.
    checkpoint(home, run.id, step=5, tokens=250)
    await train_and_end(orchestrator, run, 75)

    await orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=run.id))
    await orchestrator.tick(2)
    measure(orchestrator, run, 2, {6: 300, 8: 400})
    checkpoint(home, run.id, step=10, attempt=2, name="model", tokens=500)
    await train_and_end(orchestrator, run, 0, attempt=2)
    await orchestrator.tick(2)

    told = [one for one in reports(orchestrator) if one.kind == usage_pb2.USAGE_KIND_TOKENS_IN]
    assert [one.amount for one in told] == [250, 250]
    assert [(one.user_id, one.source, one.reference, one.reservation_id) for one in told] == [
        (people[0], "training", run.id, "")
    ] * 2
    assert len({one.id for one in reports(orchestrator)}) == 4


@pytest.mark.parametrize("nonsense", ["NaN", -5, 1e300])
async def test_a_count_of_tokens_that_makes_no_sense_is_none(orchestrator: Any, nonsense: float | str) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick(2)
    measure(orchestrator, run, 1, {2: nonsense})
    await train_and_end(orchestrator, run, 1)

    (told,) = reports(orchestrator)
    assert told.kind == usage_pb2.USAGE_KIND_CPU_SECONDS


async def test_the_ranks_own_count_is_right_where_they_were_killed_between_two_measurements(orchestrator: Any) -> None:
    run = await orchestrator.queued_run()
    await orchestrator.tick(2)
    measure(orchestrator, run, 1, {2: 100})
    counts = Path(orchestrator.spec_of(run.id, 1).directory) / "counts"
    counts.mkdir()
    (counts / "rank-0").write_text(f"{80:020d}")
    (counts / "rank-1").write_text(f"{75:020d}")
    (counts / "rank-2").write_text("half a lin")
    await train_and_end(orchestrator, run, 137)

    (told,) = [one for one in reports(orchestrator) if one.kind == usage_pb2.USAGE_KIND_TOKENS_IN]
    assert told.amount == 155


async def test_over_quota_no_run_is_created_and_none_resumed(orchestrator: Any) -> None:
    version = await orchestrator.text_version()
    orchestrator.limits.refusal = ResourceExhausted(
        "This is over your quota of 1 runs at the same time.", retry_after=60
    )

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await orchestrator.queued_run(version_id=version)

    error: Any = from_rpc_error(refused.value)
    assert (error.code, error.message, error.retry_after) == (
        "RESOURCE_EXHAUSTED", orchestrator.limits.refusal.message, 60,
    )  # fmt: skip
    assert list((await orchestrator.runs().ListRuns(rpc.ListRunsRequest())).runs) == []


async def test_living_runs_keep_their_places_even_when_one_cannot_be_renewed(
    orchestrator: Any, people: tuple[str, str]
) -> None:
    run = await orchestrator.queued_run()
    (reservation,) = held_by_runs(orchestrator)
    assert orchestrator.limits.held[reservation] == (people[0], RUN, FIRST_SECONDS)
    orchestrator.limits.held.clear()
    orchestrator.assembly.holds.renew()
    # A run that was never stored would free its place soon; one that lives keeps it.
    assert orchestrator.limits.held == {reservation: (people[0], RUN, HOLD_SECONDS)}
    assert FIRST_SECONDS > 3 * RENEW_SECONDS

    orchestrator.limits.refusal = ResourceExhausted("over")
    orchestrator.assembly.holds.renew()
    assert (await orchestrator.run_now(run.id)).state == run.state


async def test_stored_bytes_are_held_before_an_upload_is_taken_and_told_whenever_they_change(
    orchestrator: Any, people: tuple[str, str], checkpoint: Any
) -> None:
    rows = b"".join(json.dumps({"text": f"line {number}"}).encode() + b"\n" for number in range(20))
    train = dataset_pb2.DatasetFile(split="train", upload_id=orchestrator.upload(rows))
    version = await orchestrator.dataset_version(train)
    ((reservation, held),) = orchestrator.limits.held.items()
    assert held[:2] == (people[0], {"STORED_BYTES": len(rows)})
    told = reports(orchestrator, stored=True)
    assert (told[0].reservation_id, told[0].amount, told[-1].amount) == (reservation, len(rows), len(rows))

    run = await orchestrator.queued_run(version_id=version.id)
    await orchestrator.tick(2)
    home = orchestrator.artifacts / "runs" / run.id
    checkpoint(home, run.id, step=5)
    checkpoint(home, run.id, step=10, name="model")
    await train_and_end(orchestrator, run, 0)

    size = len(b"weights of step 5")
    assert reports(orchestrator, stored=True)[-1].amount == len(rows) + size + (size + 1)


async def test_what_is_kept_is_told_for_the_model_that_was_trained_and_data_for_none(
    orchestrator: Any, checkpoint: Any
) -> None:
    def told() -> tuple[float, dict[str, float]]:
        newest = reports(orchestrator, stored=True)[-1]
        return newest.amount, dict(newest.by_model)

    version = await orchestrator.text_version()
    data, by_model = told()
    assert (data > 0, by_model) == (True, {})
    size = len(b"weights of step 5")

    first = await orchestrator.queued_run(version_id=version)
    await orchestrator.tick(2)
    home = orchestrator.artifacts / "runs" / first.id
    checkpoint(home, first.id, step=4)
    checkpoint(home, first.id, step=5)
    await train_and_end(orchestrator, first, 75)
    assert told() == (data + 2 * size, {"first": 2 * size})
    # Older ones are dropped, as save_total_limit asks for, and the last one too once the model is finished.
    await orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=first.id))
    await orchestrator.tick(2)
    shutil.rmtree(home / "checkpoints")
    checkpoint(home, first.id, step=9, attempt=2, name="model")
    await train_and_end(orchestrator, first, 0, attempt=2)
    assert told() == (data + size, {"first": size})

    # A run counts for what it starts from, however often that was trained on.
    tuned = await orchestrator.queued_run(version_id=version, base_model=run_pb2.BaseModel(run_id=first.id))
    other = await orchestrator.queued_run(version_id=version, base_model=run_pb2.BaseModel(hub="Qwen/Qwen3-0.6B"))
    await orchestrator.tick(2)
    for run in (tuned, other):
        checkpoint(orchestrator.artifacts / "runs" / run.id, run.id, step=5)
        await train_and_end(orchestrator, run, 75)
    expected = (data + 3 * size, {"first": 2 * size, "Qwen/Qwen3-0.6B": size})
    assert told() == expected
    shutil.rmtree(orchestrator.artifacts / "runs" / other.id / "checkpoints")

    count = len(reports(orchestrator, stored=True))
    orchestrator.assembly.storage.tell_everybody()
    assert (told(), len(reports(orchestrator, stored=True))) == (expected, count + 1)
    assert {one.model for one in reports(orchestrator) if one.kind} == {"first", "Qwen/Qwen3-0.6B"}
