"""What a real training used is in the ledger to its last sign of life, whoever kills it. GPUs are played by the CPU."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from espalier.auth.v1 import usage_pb2
from espalier.training_orchestrator.v1 import run_pb2
from espalier.training_orchestrator.v1 import run_service_pb2 as rpc
from espalier_common.infra.processes import free_port
from espalier_common.tables import outbox
from espalier_training_orchestrator.launchers import open_launcher
from espalier_training_orchestrator.runs.models import Attempt

pytestmark = pytest.mark.slow

SECONDS = 600.0
# What the platform takes for a machine with two GPUs does their work on the processor; all else is as it will be.
STAND_IN = """#!/bin/sh
sed -i 's/device: cuda/device: cpu/' "$ESPALIER_RUN_DIR/run.yaml"
exec {python} "$@"
"""


async def rounds(orchestrator: Any, arrived: Callable[[], bool]) -> None:
    """Rounds of the reconciler until it is so."""
    async with asyncio.timeout(SECONDS):
        while not arrived():
            await orchestrator.tick()
            await asyncio.sleep(0.05)


def is_over(orchestrator: Any, run_id: str) -> bool:
    with orchestrator.database.transaction() as session:
        return session.scalar(select(Attempt.ended_at).where(Attempt.run_id == run_id)) is not None


def told(orchestrator: Any, kind: int) -> float:
    with orchestrator.database.transaction() as session:
        payloads = session.scalars(select(outbox.c.payload).where(outbox.c.subject == "espalier.auth.v1.UsageRecorded"))
        reports = [usage_pb2.UsageRecorded.FromString(bytes(payload)) for payload in payloads]
    return sum(one.amount for one in reports if one.kind == kind)


async def test_a_training_on_two_gpus_that_was_killed_outright_tells_its_seconds_and_all_its_tokens(
    start: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="the trainer's packages are not installed")
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    address = f"127.0.0.1:{free_port()}"
    launcher = open_launcher("local", interpreter=sys.executable)
    orchestrator = await start(
        launcher=launcher, listen=address, runner_address=address, gpus=2, trainer_python=str(stand_in)
    )
    two_gpus = {
        "hyperparameters": run_pb2.Hyperparameters(max_steps=1_000_000, per_device_train_batch_size=2, cutoff_len=32),
        "resources": run_pb2.Resources(device=run_pb2.DEVICE_CUDA, processes_per_node=2),
    }
    run = await orchestrator.queued_run(**two_gpus)
    directory = orchestrator.artifacts / "runs" / run.id / "attempts" / "1"
    counts = [directory / "counts" / f"rank-{rank}" for rank in range(2)]
    try:
        await rounds(orchestrator, lambda: all(count.is_file() and count.read_text() for count in counts))
        waiting = await orchestrator.queued_run(**two_gpus)
        await orchestrator.tick()
        assert (await orchestrator.run_now(waiting.id)).message == "Waiting for 2 GPUs, no run ahead."
        await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=waiting.id))
        submitted = json.loads((directory / "submitted.json").read_text())
        lived = (directory / "runner.lock").stat().st_mtime
        os.kill(submitted["pid"], signal.SIGKILL)
        await rounds(orchestrator, lambda: is_over(orchestrator, run.id))
        over = time.time()
    finally:
        launcher.cancel(f"run-{run.id}-a1", str(directory), now=True)

    assert (await orchestrator.run_now(run.id)).reason == "PROCESS_DIED"
    began = submitted["started"]
    seconds = told(orchestrator, usage_pb2.USAGE_KIND_GPU_SECONDS)
    assert 2 * (lived - began) - 0.01 <= seconds <= 2 * (over - began)
    assert told(orchestrator, usage_pb2.USAGE_KIND_CPU_SECONDS) == 0
    assert told(orchestrator, usage_pb2.USAGE_KIND_TOKENS_IN) == sum(int(count.read_text()) for count in counts) > 0
