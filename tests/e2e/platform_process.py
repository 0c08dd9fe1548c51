"""A whole platform of its own for the tests: real processes, a data folder in a temporary place, free ports."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from espalier_common.infra.processes import free_port

ESPALIER = Path(sys.executable).parent / "espalier"
PROCESSES = ("postgres", "nats", "auth", "model-registry", "chat", "eval", "training-orchestrator", "prompt", "gateway")


T = TypeVar("T")


PATIENCE = 120.0  # seconds until a wait is in vain, however slow the machine


def until(found: Callable[[], T | None], *, what: str, seconds: float = PATIENCE) -> T:
    """The first answer that is not None; fails with `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while (answer := found()) is None:
        assert time.monotonic() < deadline, f"after {seconds} s still waiting for {what}"
        time.sleep(0.1)
    return answer


def within(seconds: float, found: Callable[[], bool], *, what: str) -> None:
    """Waits until it is found, and demands that the platform took no longer, but for the looks themselves."""
    began, slowest = time.monotonic(), 0.0

    def look() -> bool | None:
        nonlocal slowest
        start = time.monotonic()
        is_there = found()
        slowest = max(slowest, time.monotonic() - start)
        return is_there or None

    until(look, what=what)
    # Asking takes its time on a slow machine: the last look, and the one before that just missed it.
    took = time.monotonic() - began - 2 * slowest
    assert took < seconds, f"{what} took {took:.1f} s"


class Platform:
    """One platform on this machine, driven by the `espalier` command like an operator would."""

    def __init__(self) -> None:
        # Not pytest's own folder: PostgreSQL refuses to run as root, and its unprivileged user must get through.
        self.home = Path(tempfile.mkdtemp(prefix="espalier-test-"))
        self.home.chmod(0o755)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.clients: list[Api] = []

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("ESPALIER_")},
            "ESPALIER_HOME": str(self.home),
            "ESPALIER_GATEWAY_PORT": str(self.port),
            # A free port of its own for each service.
            "ESPALIER_METRICS_LISTEN": "127.0.0.1:0",
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
        }

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [ESPALIER, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert not check or done.returncode == 0, f"espalier {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def up(self) -> None:
        self.command("up")

    def destroy(self) -> None:
        for api in self.clients:
            api.http.close()
        self.command("down", check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def pid(self, process: str) -> int:
        return int(json.loads((self.home / "run" / f"{process}.json").read_text("utf-8"))["pid"])

    def metrics(self, process: str) -> str:
        """What Prometheus reads of a service: it answers at the one of its ports that speaks HTTP and has /metrics."""
        for connection in psutil.Process(self.pid(process)).net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                with suppress(httpx.HTTPError):
                    answer = httpx.get(f"http://127.0.0.1:{connection.laddr.port}/metrics", timeout=PATIENCE)
                    if answer.is_success and "# TYPE" in answer.text:
                        return answer.text
        raise AssertionError(f"{process} serves no metrics")

    def kill(self, process: str) -> None:
        """Ends a process the hard way, and waits until it is gone."""
        pid = self.pid(process)
        os.kill(pid, signal.SIGKILL)
        until(lambda: True if not alive(pid) else None, what=f"the end of {process}")

    def pids(self, module: str) -> list[int]:
        """Living processes of this platform, and of no other on the machine, that run a Python module."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                ours = str(self.home).encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if entry.name.isdigit() and module.encode() in arguments and ours and alive(int(entry.name)):
                found.append(int(entry.name))
        return sorted(found)

    def login(self, username: str, password: str, *, address: str = "127.0.0.1") -> "Api":
        """A client signed in as this user, closed with the platform.

        Whoever looks for a refusal in the audit log takes a loopback address of his own: of many refusals from one
        address within a minute only the first are told one by one.
        """
        api = Api(self.url, username, password, address=address)
        self.clients.append(api)
        return api

    def admin(self) -> "Api":
        return self.login("admin", (self.home / "admin-password").read_text("utf-8").strip())


def alive(pid: int) -> bool:
    """Whether a process lives; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Api:
    """The public REST API, as any client would use it: its token is renewed long before it ends."""

    def __init__(self, url: str, username: str, password: str, *, address: str = "127.0.0.1") -> None:
        transport = httpx.HTTPTransport(local_address=address)
        self.http = httpx.Client(base_url=url, timeout=PATIENCE, transport=transport)
        self._renewing = threading.Lock()
        self._keep(self.call("POST", "/api/v1/auth/login", {"username": username, "password": password}))
        self.http.event_hooks = {"request": [self._sign]}

    def token(self) -> str:
        """The access token, good for minutes; the old one where the session has ended."""
        with self._renewing:
            if time.monotonic() > self._renew_at:
                body = {"refresh_token": self.refresh_token}
                answer = httpx.post(self.http.base_url.join("/api/v1/auth/refresh"), json=body, timeout=PATIENCE)
                if answer.is_success:
                    self._keep(answer.json())
        return self._token

    def _keep(self, tokens: Any) -> None:
        self._token, self.refresh_token = str(tokens["access_token"]), str(tokens["refresh_token"])
        self._renew_at = time.monotonic() + float(tokens["expires_in"]) / 3
        self.http.headers["authorization"] = f"Bearer {self._token}"

    def _sign(self, request: httpx.Request) -> None:
        # What a test sends in place of it, it means to send.
        if request.headers.get("authorization") == f"Bearer {self._token}":
            request.headers["authorization"] = f"Bearer {self.token()}"

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.http.request(method, path, json=body, params=query)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)

    def upload(self, name: str, data: bytes) -> str:
        answer = self.http.post(
            "/api/v1/files",
            params={"filename": name},
            content=data,
            headers={"content-type": "application/octet-stream"},
        )
        assert answer.is_success, answer.text
        return str(answer.json()["upload_id"])

    def dataset(self, name: str, **splits: list[dict[str, Any]]) -> dict[str, Any]:
        """Uploads rows as a dataset version and waits until it is checked; split names are train, validation."""
        dataset = self.call("POST", "/api/v1/training/datasets", {"name": name})
        files = [
            {"split": split, "upload_id": self.upload(f"{split}.jsonl", jsonl(rows))} for split, rows in splits.items()
        ]
        version = self.call("POST", f"/api/v1/training/datasets/{dataset['id']}/versions", {"files": files})

        def checked() -> dict[str, Any] | None:
            found = self.get(f"/api/v1/training/dataset-versions/{version['id']}")
            return None if found["state"] == "DATASET_VERSION_STATE_VALIDATING" else dict(found)

        return until(checked, what=f"the report on {name}")

    def start(self, name: str, spec: dict[str, Any]) -> str:
        return str(self.call("POST", "/api/v1/training/runs", {"name": name, "spec": spec})["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.get(f"/api/v1/training/runs/{run_id}"))

    def wait(self, run_id: str, *states: str, seconds: float = 600) -> dict[str, Any]:
        """The run once it is in one of the states (without the prefix RUN_STATE_)."""

        def arrived() -> dict[str, Any] | None:
            run = self.run(run_id)
            state = run["state"].removeprefix("RUN_STATE_")
            ended = state in {"STOPPED", "SUCCEEDED", "FAILED", "CANCELLED"}
            assert state in states or not ended, f"{run['name']} ended {state}: {run['message']}"
            return run if state in states else None

        return until(arrived, seconds=seconds, what=f"run {run_id} to be {' or '.join(states)}")

    def wait_for_step(self, run_id: str, step: int, *, seconds: float = 600) -> None:
        def reached() -> bool | None:
            run = self.run(run_id)
            assert run["state"] not in {"RUN_STATE_FAILED", "RUN_STATE_CANCELLED"}, run["message"]
            return True if run["progress"]["step"] >= step else None

        until(reached, seconds=seconds, what=f"step {step} of run {run_id}")

    def losses(self, run_id: str) -> dict[int, float]:
        """Training loss by step."""
        return {p["step"]: p["values"]["train/loss"] for p in self.points(run_id) if "train/loss" in p["values"]}

    def points(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.get(f"/api/v1/training/runs/{run_id}/metrics", page_size=1000, page_token=token)
            found += page["points"]
            token = page["next_page_token"]
            if not token:
                return found

    def events(self, method: str, path: str, body: Any = None, **headers: str) -> Iterator[tuple[str, str, Any]]:
        """A stream of Server-Sent Events: (event, id, data)."""
        with self.http.stream(method, path, json=body, headers=headers) as answer:
            assert answer.status_code == 200, answer.read().decode()
            event, identity, data = "message", "", ""
            for line in answer.iter_lines():
                if not line:
                    if data:
                        yield event, identity, json.loads(data)
                    event, data = "message", ""
                elif line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("id: "):
                    identity = line[4:]
                elif line.startswith("data: "):
                    data += line[6:]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
