"""Workloads: one server for a name, seen ready, told dead, launched again only when somebody asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from espalier.training_orchestrator.v1 import workload_pb2 as pb
from espalier_training_orchestrator.spec import Observation, Phase


def request(orchestrator: Any, **changes: Any) -> pb.CreateWorkloadRequest:
    model: Path = orchestrator.artifacts / "runs" / "r" / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text("{}")
    fields = {"name": "deployment-1", "model_uri": "runs/r/model", "served_model_name": "tuned"}
    return pb.CreateWorkloadRequest(workload=pb.Workload(**(fields | changes)))


async def tick(orchestrator: Any, rounds: int = 1) -> None:
    for _ in range(rounds):
        await asyncio.to_thread(orchestrator.assembly.workload_reconciler.tick)


async def now(orchestrator: Any) -> pb.Workload:
    answer: pb.Workload = await orchestrator.workloads().GetWorkload(pb.GetWorkloadRequest(name="deployment-1"))
    return answer


async def test_a_server_is_launched_once_and_ready_when_it_is_seen_ready(orchestrator: Any, start: Any) -> None:
    asked = request(orchestrator)
    await asyncio.gather(*(orchestrator.workloads().CreateWorkload(asked) for _ in range(4)))
    await tick(orchestrator)
    await tick(await start(), 2)
    (name,) = orchestrator.launcher.started
    spec = orchestrator.launcher.specs[name]
    assert spec.command[1:] == (
        "-m", "espalier_trainer.serving",
        "--model", str(orchestrator.artifacts / "runs/r/model"),
        "--served-model-name=tuned", "--device", "cpu",
    )  # fmt: skip
    assert (await now(orchestrator)).state == pb.WORKLOAD_STATE_STARTING
    orchestrator.launcher.seen[name] = Observation(phase=Phase.READY, base_url="http://127.0.0.1:9")
    await tick(orchestrator)
    ready = await now(orchestrator)
    assert (ready.state, ready.base_url) == (pb.WORKLOAD_STATE_READY, "http://127.0.0.1:9/v1")


async def test_a_dead_server_is_failed_and_launched_again_only_when_asked(orchestrator: Any) -> None:
    await orchestrator.workloads().CreateWorkload(request(orchestrator))
    await tick(orchestrator)
    (first,) = orchestrator.launcher.started
    orchestrator.launcher.die(first)
    await tick(orchestrator, 2)
    failed = await now(orchestrator)
    assert (failed.state, failed.reason) == (pb.WORKLOAD_STATE_FAILED, "PROCESS_DIED")
    assert orchestrator.launcher.started == [first]
    await orchestrator.workloads().CreateWorkload(request(orchestrator))
    await tick(orchestrator)
    assert len(orchestrator.launcher.started) == 2
    assert (await now(orchestrator)).state == pb.WORKLOAD_STATE_STARTING
    assert orchestrator.launcher.forgotten == [first]


async def test_a_deleted_workload_is_gone_and_its_server_ended(orchestrator: Any) -> None:
    await orchestrator.workloads().CreateWorkload(request(orchestrator))
    await tick(orchestrator)
    (name,) = orchestrator.launcher.started
    for _ in range(2):
        await orchestrator.workloads().DeleteWorkload(pb.DeleteWorkloadRequest(name="deployment-1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await now(orchestrator)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await tick(orchestrator)
    assert orchestrator.launcher.cancelled == [(name, False)]
    orchestrator.launcher.cancel(name, "", now=True)
    await tick(orchestrator)
    assert orchestrator.launcher.forgotten == [name]


async def test_a_model_that_is_not_in_the_store_is_refused(orchestrator: Any) -> None:
    for uri in ("runs/none/model", "../../etc", "/etc"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await orchestrator.workloads().CreateWorkload(request(orchestrator, model_uri=uri))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
