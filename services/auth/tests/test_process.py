"""The process of auth: what it refuses to start with, and what a kill -9 leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from espalier.auth.v1 import service_pb2, service_pb2_grpc
from espalier_auth.settings import AuthSettings
from espalier_common.infra.processes import free_port
from espalier_common.rpc.status import from_rpc_error

pytestmark = pytest.mark.slow

_IMPATIENT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "ESPALIER_MASTER_KEY"),
        ({"ESPALIER_MASTER_KEY": "c2hvcnQ="}, "at least 32 random bytes"),
        ({"ESPALIER_MASTER_KEY": "ab" * 32}, "is not random"),
    ],
)
def test_auth_does_not_start_without_a_strong_master_key(variables: dict[str, str], message: str) -> None:
    done = _run(variables | {"ESPALIER_DATABASE_URL": "postgresql+psycopg2://nobody@127.0.0.1:1/x"})

    assert done.returncode == 78
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(value in done.stderr for value in variables.values())


def test_a_used_refresh_token_stays_used_after_kill_9(
    auth_settings: Callable[..., AuthSettings], tmp_path: Path
) -> None:
    environment = _variables(auth_settings(), tmp_path)
    used, token = "", ""
    for _ in range(3):
        with _process(environment, end=signal.SIGKILL) as stub:
            if not token:
                password = (tmp_path / "admin-password").read_text().strip()
                token = stub.Login(service_pb2.LoginRequest(username="admin", password=password)).refresh_token
            used, token = token, stub.Refresh(service_pb2.RefreshRequest(refresh_token=token)).refresh_token
    with _process(environment, end=signal.SIGTERM) as stub:
        for refused_token in (used, token):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Refresh(service_pb2.RefreshRequest(refresh_token=refused_token))
            assert from_rpc_error(refused.value).reason == "INVALID_REFRESH_TOKEN"


def test_keys_are_rotated_by_a_command_while_the_service_runs(
    auth_settings: Callable[..., AuthSettings], tmp_path: Path
) -> None:
    environment = _variables(auth_settings(), tmp_path)
    with _process(environment, end=signal.SIGTERM) as stub:
        password = (tmp_path / "admin-password").read_text().strip()
        pair = stub.Login(service_pb2.LoginRequest(username="admin", password=password))
        (before,) = stub.GetJwks(service_pb2.GetJwksRequest()).keys

        done = _run(environment, "rotate-keys")

        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        signing, following = _keys_when_two(stub)
        assert signing.kid == before.kid != following.kid
        # Nobody is signed out by it.
        assert stub.Refresh(service_pb2.RefreshRequest(refresh_token=pair.refresh_token)).access_token
        assert stub.Login(service_pb2.LoginRequest(username="admin", password=password)).access_token
        unknown = _run(environment, "rotate-nothing")
        assert (unknown.returncode != 0, "Traceback" in unknown.stderr) == (True, False)


def _keys_when_two(stub: Any) -> list[Any]:
    """The published keys, as soon as the service has seen the new one."""
    deadline = time.monotonic() + 120
    while len(keys := stub.GetJwks(service_pb2.GetJwksRequest()).keys) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return list(keys)


def _variables(settings: AuthSettings, home: Path) -> dict[str, str]:
    return {
        "ESPALIER_DATABASE_URL": settings.database_url,
        "ESPALIER_MASTER_KEY": settings.master_key.get_secret_value(),
        "ESPALIER_HOME": str(home),
        "ESPALIER_NATS_URL": "nats://127.0.0.1:1",
        "ESPALIER_LISTEN": f"127.0.0.1:{free_port()}",
    }


@contextmanager
def _process(variables: dict[str, str], *, end: signal.Signals) -> Iterator[Any]:
    """A real process of auth that answers; ended by this signal."""
    command = [sys.executable, "-m", "espalier_auth"]
    process = subprocess.Popen(command, env=_environment(variables), stderr=subprocess.DEVNULL)
    try:
        with grpc.insecure_channel(variables["ESPALIER_LISTEN"], options=_IMPATIENT) as channel:
            grpc.channel_ready_future(channel).result(timeout=120)
            yield service_pb2_grpc.AuthServiceStub(channel)
    finally:
        process.send_signal(end)
        assert process.wait(120) == (0 if end is signal.SIGTERM else -end)


def _run(variables: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "espalier_auth", *command],
        env=_environment(variables), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _environment(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")} | variables
