"""`espalier audit` against a small server that gives the answers of the REST API."""

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from espalier_client.__main__ import run

HEAD = f"3:{'ab' * 32}"


class FakeLog:
    """Two pages of events, a file that may break off, and a chain that may be broken."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []
        self.breaks_off = False
        self.broken = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1/audit-events:export", self.export),
                Route("/api/v1/audit-events:verify", self.verify),
                Route("/api/v1/audit-events", self.events),
            ]
        )

    async def events(self, request: Request) -> Response:
        self.queries.append(dict(request.query_params))
        second = request.query_params.get("page_token") == "more"
        return JSONResponse({"events": [an_event(1 if second else 2)], "next_page_token": "" if second else "more"})

    async def export(self, request: Request) -> Response:
        self.queries.append(dict(request.query_params))

        async def pieces() -> AsyncIterator[bytes]:
            yield b"sequence,actor_name\r\n"
            yield b"1,ada\r\n"
            if self.breaks_off:
                raise ConnectionError

        return StreamingResponse(pieces(), media_type="text/csv")

    async def verify(self, request: Request) -> Response:
        self.queries.append(dict(request.query_params))
        first = "start" not in request.query_params
        finding = {
            "intact": not self.broken,
            "checked": 2,
            "broken_sequence": self.broken,
            "message": f"Event {self.broken} was changed." if self.broken else "The chain is whole up to event 4.",
            "head": HEAD,
            "next": f"2:{'cd' * 32}" if first and not self.broken else "",
        }
        return JSONResponse(finding)


def an_event(sequence: int) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "time": "2026-11-24T05:00:00Z",
        "actor_id": "018f6e1c-0b0a-7c3e-9d5a-0242ac120002",
        "actor_name": f"ada-{sequence}",
        "action": "espalier.auth.v1.UserService/UpdateUser",
        "target": "users/1",
        "result": "AUDIT_RESULT_REFUSED",
        "reason": "PERMISSION_DENIED",
        "address": "192.0.2.7",
    }


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLog]:
    fake = FakeLog()
    server = uvicorn.Server(uvicorn.Config(fake.app(), port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.01)
    monkeypatch.setenv("ESPALIER_SERVER", f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ESPALIER_TOKEN", "token-1")
    monkeypatch.setenv("NO_COLOR", "1")
    yield fake
    server.should_exit = True
    thread.join()


def test_events_are_listed_over_all_pages_with_the_filter(log: FakeLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "list", "--actor", "ada", "--result", "refused", "--since", "2026-01-01T00:00:00Z"]) == 0
    out = capsys.readouterr().out
    assert "ada-2" in out
    assert "ada-1" in out
    assert "UserService/UpdateUser" in out
    wanted = {"actor": "ada", "result": "AUDIT_RESULT_REFUSED", "start_time": "2026-01-01T00:00:00Z"}
    assert all(wanted.items() <= query.items() for query in log.queries)


@pytest.mark.parametrize("command", ["list", "export"])
def test_every_filter_of_the_api_is_an_option(log: FakeLog, capfd: pytest.CaptureFixture[str], command: str) -> None:
    filters = {"target": "users/", "address": "192.0.2.7", "request_id": "abc", "query": "denied"}
    options = [part for name, value in filters.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run(["audit", command, *options, "--until", "2026-01-01T01:00+01:00"]) == 0
    wanted = {**filters, "end_time": "2026-01-01T00:00:00Z"}
    assert all(wanted.items() <= query.items() for query in log.queries)


def test_what_is_no_time_is_told_with_its_option(log: FakeLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "list", "--since", "yesterday"]) == 2
    assert "--since must be a date or a time such as 2026-12-01" in capsys.readouterr().err
    assert log.queries == []


def test_an_export_is_written_as_a_file(log: FakeLog, tmp_path: Path) -> None:
    file = tmp_path / "audit.csv"
    assert run(["audit", "export", str(file), "--action", "espalier.auth"]) == 0
    assert file.read_bytes() == b"sequence,actor_name\r\n1,ada\r\n"
    assert log.queries == [{"format": "csv", "action": "espalier.auth"}]


def test_an_export_goes_to_standard_output(log: FakeLog, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["audit", "export", "--format", "jsonl"]) == 0
    assert capfdbinary.readouterr().out == b"sequence,actor_name\r\n1,ada\r\n"
    assert log.queries == [{"format": "jsonl"}]


def test_half_an_export_leaves_no_file(log: FakeLog, tmp_path: Path) -> None:
    log.breaks_off = True
    assert run(["audit", "export", str(tmp_path / "audit.csv")]) == 7
    assert list(tmp_path.glob("audit*")) == []


def test_a_whole_chain_ends_with_0_and_the_head(log: FakeLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "verify", "--head", HEAD]) == 0
    out = capsys.readouterr().out
    assert "4 events checked" in out
    assert HEAD in out
    assert [query.get("start", "") for query in log.queries] == ["", f"2:{'cd' * 32}"]
    assert all(query["head"] == HEAD for query in log.queries)


def test_a_broken_chain_ends_with_1_and_names_the_event(log: FakeLog, capsys: pytest.CaptureFixture[str]) -> None:
    log.broken = 2
    assert run(["audit", "verify", "-o", "json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["broken_sequence"] == 2
    assert "broken at event 2" in told.err
