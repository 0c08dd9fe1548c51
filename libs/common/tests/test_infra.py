"""Detached processes, PostgreSQL and NATS on one machine."""

import json
import os
import signal
import socket
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from espalier_common.infra import processes
from espalier_common.infra.nats import LocalNats, permissions_of
from espalier_common.infra.postgres import LocalPostgres
from espalier_common.infra.processes import PortTaken, ProcessError, ProcessRecord

Files = dict[str, Any]

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def home(service_home: Path) -> Path:
    folder = service_home / uuid.uuid4().hex
    folder.mkdir()
    return folder


@pytest.fixture
def files(home: Path) -> Files:
    return {"pid_file": home / "run" / "p.json", "log_file": home / "log" / "p.log"}


def wait_for_output(log_file: Path) -> None:
    end = time.monotonic() + 60
    while "up" not in processes.tail(log_file):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_is_started_found_again_and_stopped(files: Files) -> None:
    record = processes.start(SLEEP, **files, env={"A": "1"}, extra={"port": 7})
    wait_for_output(files["log_file"])
    assert os.getsid(record.pid) == record.pid
    assert psutil.Process(record.pid).environ()["A"] == "1"
    found = processes.read_record(files["pid_file"])
    assert found == record
    assert found.extra == {"port": 7}
    assert processes.is_alive(found)
    assert processes.stop(found)
    assert not processes.is_alive(found)
    assert not processes.stop(found)


def test_a_process_that_ignores_the_request_is_killed(files: Files) -> None:
    record = processes.start(STUBBORN, **files)
    wait_for_output(files["log_file"])
    assert processes.stop(record, deadline=0.2)
    assert not processes.is_alive(record)


def test_a_pid_that_belongs_to_another_process_by_now_is_not_alive() -> None:
    myself = psutil.Process()
    assert processes.is_alive(ProcessRecord(myself.pid, myself.create_time(), []))
    assert not processes.is_alive(ProcessRecord(myself.pid, myself.create_time() - 100, []))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_broken_pid_file_is_no_process(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    assert processes.read_record(tmp_path / "p.json") is None


def test_a_program_that_is_missing_is_told(files: Files) -> None:
    with pytest.raises(ProcessError, match="Cannot start /no/such"):
        processes.start(["/no/such"], **files)


def test_a_process_that_ends_while_starting_shows_its_log(files: Files) -> None:
    record = processes.start([sys.executable, "-c", "print('the reason'); exit(3)"], **files)
    with pytest.raises(ProcessError, match="the reason"):
        processes.wait_until(lambda: False, record=record, deadline=60, what="It", log_file=files["log_file"])


def test_a_taken_port_is_told_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"Port {port} is taken.*ESPALIER_X_PORT"):
            processes.require_free_port(port, setting="ESPALIER_X_PORT")
    processes.require_free_port(processes.free_port(), setting="X")


@pytest.fixture
def server(home: Path) -> Iterator[LocalPostgres]:
    server = LocalPostgres(home / "data base", port=processes.free_port(), password="p", durable=False)
    yield server
    server.stop()


def test_postgres_gives_each_service_a_database_that_no_other_may_enter(postgres: LocalPostgres) -> None:
    server = postgres
    assert server.start() == server.start()
    assert server.ensure_database("model-registry", password="p w").endswith("/model-registry")
    server.ensure_database("chat", password="first")
    server.ensure_database("chat", password="second")
    psycopg2.connect(server.url("chat", user="chat", password="second", driver="")).close()
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(server.url("chat", user="chat", password="first", driver=""))
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(server.url("model-registry", user="chat", password="second", driver=""))


def test_postgres_listens_on_this_machine_alone(postgres: LocalPostgres) -> None:
    server, record = postgres, postgres.start()
    listening = [c.laddr for c in psutil.Process(record.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [tuple(address) for address in listening] == [("127.0.0.1", server.port)]


def test_postgres_keeps_what_was_committed_through_kill_and_lost_pid_file(server: LocalPostgres) -> None:
    server = replace(server, durable=True)
    record = server.start()
    connection = server.connect()
    connection.cursor().execute("CREATE TABLE t AS SELECT 1 AS n")
    connection.close()
    server._pid_file.unlink()
    assert server.is_running()
    os.kill(record.pid, signal.SIGKILL)
    again = server.start()
    assert again.pid != record.pid
    connection = server.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM t")
        assert cursor.fetchone() == (1,)
    connection.close()
    assert server.stop()
    assert not server.is_running()


def test_postgres_ignores_a_pid_file_that_names_another_program(server: LocalPostgres) -> None:
    record = server.start()
    lines = (server.data_dir / "postmaster.pid").read_text().splitlines()
    assert server.stop()
    (server.data_dir / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert not server.is_running()
    assert server.start().pid != record.pid


def test_postgres_starts_over_after_an_interrupted_first_start(server: LocalPostgres) -> None:
    server.data_dir.mkdir()
    (server.data_dir / "base").mkdir()
    (server.data_dir / "postgresql.conf").touch()
    server.start()
    assert server.is_running()


def test_postgres_with_another_password_says_so(postgres: LocalPostgres) -> None:
    server = postgres
    with pytest.raises(ProcessError, match="another one"):
        LocalPostgres(server.data_dir, port=server.port, password="other").start()


def test_nats_keeps_its_passwords_private(home: Path) -> None:
    server = LocalNats(home / "nats", port=processes.free_port(), passwords={"auth": 'a"b', "runner": "r"})
    record = server.start()
    try:
        assert server.start() == record
        config = home / "nats" / "nats.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert json.loads(config.read_text())["listen"].startswith("127.0.0.1:")
    finally:
        assert server.stop()
    assert not server.is_running()


def test_the_runner_may_publish_telemetry_alone() -> None:
    assert permissions_of("runner") == {
        "publish": ["espalier.training_orchestrator.v1.TelemetryBatch.*"],
        "subscribe": ["_INBOX.runner.>"],
    }
    assert permissions_of("gateway") == {"publish": ["espalier.gateway.audit"], "subscribe": ["_INBOX.gateway.>"]}
    assert "espalier.model_registry.>" in permissions_of("model-registry")["publish"]
