"""A service as a process of its own: settings, migrations, readiness, metrics, drain."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from espalier_common.infra import processes

MAIN = """
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.outbox import OutboxRelay
from espalier_common.rpc.server import Service, run
from espalier_common.settings import ServiceSettings

def build(settings: ServiceSettings) -> Service:
    database, bus = Database(settings.database_url), Bus(settings.nats_url, name="tiny")
    return Service(
        name="tiny", package="tiny_service", settings=settings, servicers=[], database=database, bus=bus,
        background=[OutboxRelay(database, bus).run],
    )

if __name__ == "__main__":
    run(ServiceSettings, build)
"""

REVISION = """
from alembic import op
from espalier_common.migrations import create_messaging_tables
revision = "0001"
down_revision = None
def upgrade() -> None:
    create_messaging_tables(op)
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    versions = tmp_path / "tiny_service" / "_migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "tiny_service" / "__init__.py").touch()
    (tmp_path / "tiny_service" / "__main__.py").write_text(MAIN)
    (versions / "0001_first.py").write_text(REVISION)
    return tmp_path


@pytest.fixture
def environment(packages: Path, database_url: str, nats_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(packages),
        "ESPALIER_LISTEN": f"127.0.0.1:{processes.free_port()}",
        "ESPALIER_DATABASE_URL": database_url,
        "ESPALIER_NATS_URL": nats_url,
        "ESPALIER_SERVICES": '{"auth": "127.0.0.1:9"}',
        "ESPALIER_MIGRATE_ON_START": "true",
    }


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(environment: Mapping[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tiny_service", *arguments], env=dict(environment), stderr=log, stdout=log
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def is_ready(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def wait_ready(address: str) -> None:
    end = time.monotonic() + 120
    while not is_ready(address):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_migrates_serves_counts_and_drains(start: Start, environment: dict[str, str], tmp_path: Path) -> None:
    metrics = f"127.0.0.1:{processes.free_port()}"
    process = start({**environment, "ESPALIER_METRICS_LISTEN": metrics})
    wait_ready(environment["ESPALIER_LISTEN"])
    with urllib.request.urlopen(f"http://{metrics}/metrics") as reply:
        assert b"espalier_rpc_calls" in reply.read()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events.index("migrating") < events.index("ready") < events.index("stopped")


def test_it_starts_without_the_bus(start: Start, environment: dict[str, str]) -> None:
    process = start({**environment, "ESPALIER_NATS_URL": "nats://a:b@127.0.0.1:9"})
    wait_ready(environment["ESPALIER_LISTEN"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


def test_migrate_alone_ends(start: Start, environment: dict[str, str]) -> None:
    assert start(environment, "migrate").wait(timeout=120) == 0
    assert start(environment, "migrate").wait(timeout=120) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ESPALIER_LISTEN": "nowhere"}, "ESPALIER_LISTEN must be host:port"),
        ({"ESPALIER_SERVICES": "{"}, "services"),
        ({"ESPALIER_SERVICES": "{}"}, "ESPALIER_SERVICES has no address of 'auth'"),
        ({"ESPALIER_LOG_LEVEL": "loud"}, "ESPALIER_LOG_LEVEL"),
        ({"ESPALIER_DATABASE_URL": ""}, "ESPALIER_DATABASE_URL"),
        ({"ESPALIER_NATS_URL": "127.0.0.1:4222"}, "ESPALIER_NATS_URL"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_78(
    start: Start, environment: dict[str, str], tmp_path: Path, change: dict[str, str], sentence: str
) -> None:
    assert start({**environment, **change}).wait(timeout=120) == 78
    last = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert sentence in last
    assert "Traceback" not in (tmp_path / "log").read_text()
