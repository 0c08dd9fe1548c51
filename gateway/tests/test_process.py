"""The process: `python -m espalier_gateway`."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from espalier_common.infra.processes import free_port
from espalier_common.testing.rpc import SigningKey
from espalier_gateway.__main__ import main

from .fakes import RUN_ID, new_fakes, servicers

pytestmark = pytest.mark.slow


@pytest.fixture
def start() -> Any:
    """Factory: starts the process with these settings; it is gone after the test."""
    started = []

    def run(**settings: Any) -> Any:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
        environment.update({f"ESPALIER_{name.upper()}": value for name, value in settings.items()})
        command = [sys.executable, "-m", "espalier_gateway"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        _close(process)


def _close(process: Any) -> None:
    process.stdout.close()
    process.stderr.close()
    process.wait(timeout=60)


def processor_seconds() -> float:
    """What the children that have ended took of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_until_live(port: Any, process: Any, seconds: Any = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10):
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the gateway did not start")


def end(process: Any) -> Any:
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    return process.returncode, [json.loads(line) for line in errors.splitlines()]


def test_it_starts_fast_and_small_logs_json_and_ends_with_0(start: Any) -> None:
    port = free_port()
    bare = processor_seconds()
    subprocess.run([sys.executable, "-c", "import asyncio, json, ssl"], check=True)
    before = processor_seconds()
    bare = before - bare
    process = start(listen=f"127.0.0.1:{port}", services="{}")
    wait_until_live(port, process)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=60) as answer:
        assert answer.status == 200
    status = Path(f"/proc/{process.pid}/status").read_text()
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    code, log = end(process)
    assert code == 0
    assert memory < 90 << 10  # KiB
    # Seconds, on a busy machine; on a slow one, by what a Python takes that does nothing.
    assert processor_seconds() - before < max(2.5, 30 * bare)
    events = [line["event"] for line in log]
    assert events[0] == "ready"
    assert events[-1] == "stopped"
    request = next(line for line in log if line["event"] == "request")
    assert (request["method"], request["path"], request["status"]) == ("GET", "/openapi.json", 200)
    assert request["request_id"]
    assert request["service"] == "gateway"


def test_a_taken_port_is_one_sentence_that_names_port_and_setting(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(listen=f"127.0.0.1:{port}")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 78
    assert len(errors.splitlines()) == 1
    assert str(port).encode() in errors
    assert b"ESPALIER_LISTEN" in errors


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen", "nonsense"),
        ("services", "not json"),
        ("public_url", "ftp://x"),
        ("artifacts_url", "here"),
        ("max_body_bytes", "-1"),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, value: Any
) -> None:
    for name in [name for name in os.environ if name.startswith("ESPALIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("espalier_gateway.__main__.configure_logging", lambda *_: None)
    monkeypatch.setenv("ESPALIER_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv(f"ESPALIER_{setting.upper()}", value)
    assert main() == 78
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"ESPALIER_{setting.upper()}" in said or setting in said


def test_metrics_stand_on_a_port_of_their_own(start: Any) -> None:
    port, metrics = free_port(), free_port()
    process = start(listen=f"127.0.0.1:{port}", metrics_listen=f"127.0.0.1:{metrics}", services="{}")
    wait_until_live(port, process)
    for path in ("/api/v1/nothing", "/api/v1/me"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60)
    counted = 'espalier_http_requests_total{method="GET",route="espalier.auth.v1.UserService.GetMe",status="503"}'
    text = ""
    deadline = time.monotonic() + 60
    # A request is counted after its answer has gone out.
    while counted not in text and time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=60) as answer:
            text = answer.read().decode()
    assert counted in text
    assert end(process)[0] == 0
    assert "nothing" not in text


async def test_sigterm_lets_running_requests_end_and_tells_streams_to_come_again(start: Any, rpc_server: Any) -> None:
    fakes = new_fakes()
    fakes["runs"].hold = True
    rpc = await rpc_server(servicers(fakes))
    port = free_port()
    services = json.dumps({"training-orchestrator": rpc.address})
    process = start(listen=f"127.0.0.1:{port}", services=services, drain_seconds="110")
    await asyncio.to_thread(wait_until_live, port, process)
    headers = {"authorization": f"Bearer {rpc.token_for(permissions=['*'])}"}
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, verify=False, trust_env=False, timeout=60
        ) as client,
        client.stream("GET", f"/api/v1/training/runs/{RUN_ID}:watch") as answer,
    ):
        pieces = answer.aiter_text()
        await anext(pieces)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest = [piece async for piece in pieces]
    code, _ = await asyncio.to_thread(end, process)
    assert time.monotonic() - begun < 60, "the time for what runs was waited for"
    assert code == 0
    assert rest[-1].endswith("retry: 2000\n\n")


async def test_tokens_are_verified_with_the_keys_that_auth_gives(start: Any, rpc_server: Any, tmp_path: Path) -> None:
    fakes = new_fakes()
    rpc = await rpc_server(servicers(fakes))
    fakes["auth"].keys = rpc.key.jwks()
    port = free_port()
    services = json.dumps({"auth": rpc.address})
    process = start(listen=f"127.0.0.1:{port}", services=services, artifacts_url=tmp_path.as_uri())
    await asyncio.to_thread(wait_until_live, port, process)
    address = f"http://127.0.0.1:{port}/api/v1/files?filename=a"
    headers = {"content-type": "application/octet-stream"}
    async with httpx.AsyncClient(headers=headers, verify=False, trust_env=False, timeout=60) as client:
        for _ in range(2):
            token = rpc.token_for(permissions=["training.datasets.create"])
            answer = await client.post(address, content=b"x", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 201, answer.text
        forged = SigningKey().token(permissions=["*"])
        answer = await client.post(address, content=b"x", headers={"authorization": f"Bearer {forged}"})
        assert answer.status_code == 401
    assert len(fakes["auth"].requests) == 1
