"""An attempt's directory, a runner process in it, and an orchestrator and a message bus to speak to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from espalier.training_orchestrator.v1 import telemetry_pb2 as pb
from espalier.training_orchestrator.v1.telemetry_pb2_grpc import (
    RunnerServiceServicer,
    add_RunnerServiceServicer_to_server,
)

RUN_ID = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
TOKEN = "attempt-token"
DEADLINE = 120.0

# What every fake rank has at hand; it imports little, so that it starts in milliseconds.
RANK_PRELUDE = """
import json, os, signal, sys, time
rank = int(os.environ["RANK"])
def say(*words):
    print(*words, flush=True)
def metric(step, **values):
    line = {"step": step, "time": 1000.0 + step, "epoch": step / 10, "total_steps": 10, "values": values}
    with open("metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")
def save(step):
    directory = os.path.join("..", "..", "checkpoints", f"step-{step}")
    os.makedirs(directory + ".tmp")
    with open(os.path.join(directory + ".tmp", "weights"), "w") as file:
        file.write("w" * 100)
    with open(os.path.join(directory + ".tmp", "MANIFEST.json"), "w") as file:
        json.dump({"attempt": 1, "step": step}, file)
    os.rename(directory + ".tmp", directory)
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)
"""


@dataclass
class AttemptDirectory:
    """The directory of attempt 1, with its run.yaml and the program of its ranks."""

    run: Path
    processes: int = 2
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.run / "attempts" / "1"

    def prepare(self, program: str, **run_file: Any) -> None:
        (self.path / "logs").mkdir(parents=True, exist_ok=True)
        content = {
            "run_id": RUN_ID,
            "attempt": 1,
            "output_dir": str(self.run),
            "resources": {"device": "cpu", "nodes": 1, "processes_per_node": self.processes, "threads_per_process": 1},
        }
        (self.path / "run.yaml").write_text(json.dumps(content | run_file))
        (self.path / "rank.py").write_text(RANK_PRELUDE + program)
        (self.path / "token").write_text(TOKEN + "\n")

    @property
    def rank_command(self) -> list[str]:
        return [sys.executable, "-I", "-S", "rank.py"]

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        """Starts a runner as the local launcher would, without its lock."""
        variables = {"ESPALIER_RUN_DIR": str(self.path), "ESPALIER_ATTEMPT_TOKEN_FILE": str(self.path / "token")}
        log = (self.path / "logs" / "runner.log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "espalier_trainer.runner", "--rank-command", " ".join(self.rank_command)],
                env={"PATH": os.environ["PATH"], **variables, **env},
                cwd=self.path,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Waits for the end; gives result.json, whose exit code must be the process's."""
        code = process.wait(DEADLINE)
        result: dict[str, Any] = json.loads((self.path / "result.json").read_text())
        assert result["exit_code"] == code
        return result

    async def finished(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The same, while the test's own servers go on."""
        return await asyncio.to_thread(self.finish, process)

    def log(self, rank: int) -> str:
        name = f"rank-{rank}.log" if rank >= 0 else "runner.log"
        path = self.path / "logs" / name
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[AttemptDirectory]:
    """A directory for one attempt; its runners are dead at the end."""
    directory = AttemptDirectory(tmp_path / "runs" / RUN_ID)
    yield directory
    directory.close()


class Orchestrator(RunnerServiceServicer):
    """The orchestrator's side of RunnerService, over real gRPC, with a memory of what it heard."""

    def __init__(self) -> None:
        self.registrations: list[pb.RegisterAttemptRequest] = []
        self.beats: list[pb.HeartbeatRequest] = []
        self.command: pb.RunnerCommand.ValueType = pb.RUNNER_COMMAND_CONTINUE
        self.refuse: grpc.StatusCode | None = None
        self.forgetful = False
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server()
        add_RunnerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def RegisterAttempt(self, request: Any, context: Any) -> pb.RegisterAttemptResponse:
        if self.refuse is not None:
            await context.abort(self.refuse, "attempt 1 is over")
        self.registrations.append(request)
        self.forgetful = False
        return pb.RegisterAttemptResponse(fence=len(self.registrations) + 6, heartbeat_seconds=0.1)

    async def Heartbeat(self, request: Any, context: Any) -> pb.HeartbeatResponse:
        if self.forgetful:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such registration")
        self.beats.append(request)
        return pb.HeartbeatResponse(command=self.command)


@pytest.fixture
async def orchestrator() -> AsyncIterator[Orchestrator]:
    """A running orchestrator."""
    service = Orchestrator()
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """Waits until the given look is true, and gives what it saw."""

    async def wait(look: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if found := look():
                return found
            await asyncio.sleep(0.02)
        raise AssertionError("it did not happen in time")

    return wait


READER = "reader"


class Bus:
    """A real NATS server with the platform's user for runners, which a test can stop and start."""

    def __init__(self, directory: Path) -> None:
        from espalier_common.infra import processes
        from espalier_common.infra.nats import RUNNER, LocalNats

        class Server(LocalNats):
            """Its user `reader`, which the platform has not, looks into what was published."""

            def _user(self, name: str) -> dict[str, Any]:
                user = super()._user(name)
                return {"user": name, "password": user["password"]} if name == READER else user

        passwords = {RUNNER: uuid.uuid4().hex, READER: uuid.uuid4().hex}
        self.server = Server(directory, port=processes.free_port(), passwords=passwords)
        self.runner_url = self.server.url(RUNNER)

    async def make_stream(self) -> None:
        from espalier_common.bus import TELEMETRY

        client = await self._connect()
        await client.jetstream().add_stream(name=TELEMETRY.name, subjects=list(TELEMETRY.subjects))
        await client.close()

    async def batches(self) -> list[tuple[str, pb.TelemetryBatch]]:
        """Message id and content of everything published so far."""
        from espalier_common.bus import TELEMETRY

        client = await self._connect()
        jetstream = client.jetstream()
        count = (await jetstream.stream_info(TELEMETRY.name)).state.messages
        found = [await jetstream.get_msg(TELEMETRY.name, seq=number + 1) for number in range(count)]
        await client.close()
        return [
            ((message.headers or {})["Nats-Msg-Id"], pb.TelemetryBatch.FromString(message.data or b""))
            for message in found
        ]

    async def _connect(self) -> Any:
        import nats

        return await nats.connect(self.server.url(READER))


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    """A running bus with the telemetry stream."""
    found = Bus(tmp_path / "nats")
    found.server.start()
    await found.make_stream()
    yield found
    found.server.stop()
