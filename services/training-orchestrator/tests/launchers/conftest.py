"""The launchers under test, each with a world around it that a test can push: real processes, or a dictionary."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from espalier_training_orchestrator.launchers import Launcher, open_launcher
from espalier_training_orchestrator.launchers.outcome import (
    KILLED_ON_REQUEST,
    PROCESS_DIED,
    SERVER_STOPPED,
    ended_in_order,
)
from espalier_training_orchestrator.spec import LaunchSpec, Observation, Phase, Resources, WorkKind

DEADLINE = 120.0

# Behaves as the runner does, driven by files that the test drops into its directory.
RUNNER = """
import json, os, signal, time
def result(content):
    open("result.tmp", "w").write(content)
    os.rename("result.tmp", "result.json")
    raise SystemExit
def stop(*_):
    open("stop", "w").write("save")
    result(json.dumps({"exit_code": 83, "message": "stopped"}))
signal.signal(signal.SIGTERM, stop)
lock = int(os.environ["ESPALIER_LOCK_FD"])
os.ftruncate(lock, 0)
os.write(lock, json.dumps({"pid": os.getpid()}).encode())
open("starts", "a").write("x")
open("logs/rank-0.log", "a").write("step 1\\nstep 2\\n")
print("runner speaks", flush=True)
while not os.path.exists("finish"):
    time.sleep(0.01)
result(open("finish").read())
"""

SERVER = """
import http.server, os
open("starts", "a").write("x")
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.path.exists("ready") and self.path == "/health" else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Health).serve_forever()
"""


def make_spec(directory: Path, kind: WorkKind = WorkKind.ATTEMPT, **changes: Any) -> LaunchSpec:
    """A launch of one of the little programs above."""
    program = RUNNER if kind is WorkKind.ATTEMPT else SERVER
    spec = LaunchSpec(
        name="run-1-a1" if kind is WorkKind.ATTEMPT else "deployment-1",
        kind=kind,
        command=(sys.executable, "-I", "-S", "-c", program),
        env={"GREETING": "hello"},
        directory=str(directory),
        files={"run.yaml": "attempt: 1\n", "secrets/attempt-token": "t0ken"},
        resources=Resources(device="cpu"),
        labels={"run": "1"},
        grace_seconds=5,
        health_path="/health" if kind is WorkKind.SERVER else None,
    )
    return replace(spec, **changes)


def wait_for(look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as that is true."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


class World(Protocol):
    """A launcher and what a test can do to the work behind it."""

    launcher: Launcher
    directory: Path

    def reopen(self) -> None:
        """The orchestrator dies and comes back."""

    def finish(self, result: Mapping[str, Any]) -> None:
        """The attempt ends with this result."""

    def die(self) -> None:
        """The work is killed by the outside world."""

    def become_ready(self) -> None:
        """The server has loaded."""

    def starts(self) -> int:
        """How often the work was started."""


def await_phase(world: World, name: str, phase: Phase) -> Observation:
    """The first observation in that phase."""

    def look() -> Observation | None:
        seen = world.launcher.observe(name, str(world.directory))
        return seen if seen is not None and seen.phase is phase else None

    found = wait_for(look)
    assert isinstance(found, Observation)
    return found


class LocalWorld:
    """Real processes in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.launcher = open_launcher("local")

    def reopen(self) -> None:
        self.launcher = open_launcher("local")

    def finish(self, result: Mapping[str, Any]) -> None:
        temporary = self.directory / "finish.tmp"
        temporary.write_text(json.dumps(result))
        temporary.rename(self.directory / "finish")

    def die(self) -> None:
        self.launcher.cancel("", str(self.directory), now=True)
        (self.directory / "cancelled").unlink()  # nobody asked for it

    def become_ready(self) -> None:
        (self.directory / "ready").touch()

    def starts(self) -> int:
        path = self.directory / "starts"
        return len(path.read_text()) if path.exists() else 0

    def close(self) -> None:
        self.launcher.cancel("", str(self.directory), now=True)


@dataclass
class InMemoryLauncher:
    """A launcher whose work is a record: for the reconciler's tests and as the contract's second witness."""

    world: InMemoryWorld

    def plan(self, spec: LaunchSpec) -> Mapping[str, Any]:
        files = {name: "***" if "token" in name else text for name, text in spec.files.items()}
        return {"name": spec.name, "command": list(spec.command), "files": files}

    def submit(self, spec: LaunchSpec) -> None:
        if spec.name not in self.world.work:
            self.world.work[spec.name] = spec
            self.world.seen = Observation(phase=Phase.RUNNING if spec.kind is WorkKind.ATTEMPT else Phase.STARTING)
            self.world.started += 1

    def observe(self, name: str, directory: str) -> Observation | None:
        return self.world.seen if name in self.world.work else None

    def read_log(self, name: str, directory: str, *, rank: int, offset: int, limit: int) -> bytes:
        log = {0: b"step 1\nstep 2\n", -1: b"runner speaks\n"}.get(rank, b"") if name in self.world.work else b""
        return log[offset : offset + limit]

    def cancel(self, name: str, directory: str, *, now: bool) -> None:
        spec, seen = self.world.work.get(name), self.world.seen
        if spec is None or seen.phase.is_terminal:
            return
        if spec.kind is WorkKind.SERVER or now:
            outcome = SERVER_STOPPED if spec.kind is WorkKind.SERVER else KILLED_ON_REQUEST
            self.world.seen = Observation(phase=outcome.phase, reason=outcome.reason, message=outcome.message)
        else:
            self.world.finish({"exit_code": 83, "message": "stopped"})

    def forget(self, name: str, directory: str) -> None:
        spec = self.world.work.get(name)
        if spec is not None and spec.kind is WorkKind.SERVER and self.world.seen.phase.is_terminal:
            del self.world.work[name]


@dataclass
class InMemoryWorld:
    """The work of the in-memory launcher."""

    directory: Path
    work: dict[str, LaunchSpec] = field(default_factory=dict)
    seen: Observation = field(default_factory=lambda: Observation(phase=Phase.STARTING))
    started: int = 0
    launcher: Launcher = field(init=False)

    def __post_init__(self) -> None:
        self.launcher = InMemoryLauncher(self)

    def reopen(self) -> None:
        self.launcher = InMemoryLauncher(self)

    def finish(self, result: Mapping[str, Any]) -> None:
        self.seen = ended_in_order(result)

    def die(self) -> None:
        self.seen = Observation(
            phase=PROCESS_DIED.phase, reason=PROCESS_DIED.reason, message=PROCESS_DIED.message, log_tail=("step 2",)
        )

    def become_ready(self) -> None:
        self.seen = Observation(phase=Phase.READY, base_url="http://127.0.0.1:1")

    def starts(self) -> int:
        return self.started


@pytest.fixture
def local_world(tmp_path: Path) -> Iterator[LocalWorld]:
    """The local launcher with real processes, all dead at the end."""
    world = LocalWorld(tmp_path / "work")
    yield world
    world.close()


@pytest.fixture(params=["local", "in-memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Every launcher in turn."""
    if request.param == "local":
        found: World = request.getfixturevalue("local_world")
        return found
    return InMemoryWorld(tmp_path / "work")


@pytest.fixture
def spec_for() -> Callable[..., LaunchSpec]:
    """`make_spec`, for test modules (they import nothing of each other)."""
    return make_spec


@pytest.fixture
def awaited() -> Callable[[World, str, Phase], Observation]:
    """`await_phase`, for test modules."""
    return await_phase


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """`wait_for`, for test modules."""
    return wait_for
