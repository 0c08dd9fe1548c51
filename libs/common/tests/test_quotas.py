"""Limits of use, as services ask for them, where auth comes and goes; what it answers is tested with the services."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from espalier.auth.v1 import usage_pb2, usage_pb2_grpc
from espalier_common import quotas
from espalier_common.infra.processes import free_port
from espalier_common.quotas import Limits, QuotasUnknown


class Auth(usage_pb2_grpc.QuotaServiceServicer):
    """Limits nobody."""

    def ReserveUsage(self, request: Any, context: Any) -> usage_pb2.Reservation:
        return usage_pb2.Reservation(limited=False)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start_auth(port: int) -> Iterator[Callable[[], None]]:
    server = grpc.server(ThreadPoolExecutor(1))
    usage_pb2_grpc.add_QuotaServiceServicer_to_server(Auth(), server)

    def start() -> None:
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()

    yield start
    server.stop(None).wait()


def ask(limits: Limits) -> None:
    limits.reserve("r", user_id="ada", amounts={"REQUESTS": 1}, seconds=60)


def test_an_auth_that_is_about_to_be_there_is_waited_for(
    start_auth: Callable[[], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(f"127.0.0.1:{port}", token=lambda: "token")
    monkeypatch.setattr(quotas, "CALL_SECONDS", 0.1)
    with pytest.raises(QuotasUnknown):
        ask(Limits(f"127.0.0.1:{port}", token=lambda: "token"))

    monkeypatch.setattr(quotas, "CALL_SECONDS", 60.0)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, limits)
        with pytest.raises(TimeoutError):
            asking.result(timeout=0.5)
        start_auth()
        asking.result()
