"""The command against a small server that gives the answers of the REST API."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from espalier_client.__main__ import run

RUN_ID = "01940000-0000-7000-8000-000000000001"


def a_run(state: str, step: int) -> dict[str, Any]:
    return {
        "id": RUN_ID,
        "name": "first",
        "spec": {"stage": "STAGE_PT", "finetuning_type": "FINETUNING_TYPE_FULL"},
        "state": f"RUN_STATE_{state}",
        "reason": "",
        "message": "The learning rate is too high." if state == "FAILED" else "",
        "progress": {"step": step, "total_steps": 10, "loss": 2.5, "tokens_per_second": 1200.0, "eta": "12.5s"},
        "attempt": 1,
        "resumable": False,
        "summary": {},
        "create_time": "2026-11-24T05:00:00Z",
    }


class FakePlatform:
    """Answers as the platform would; remembers what it was asked."""

    def __init__(self) -> None:
        self.refreshes: list[str] = []
        self.bodies: list[Any] = []
        self.access = "access-1"
        self.watches: list[str] = []
        self.last_state = "SUCCEEDED"
        self.code = ""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1/auth/login", self.login, methods=["POST"]),
                Route("/api/v1/auth/refresh", self.refresh, methods=["POST"]),
                Route("/api/v1/me", self.me),
                Route("/api/v1/training/runs", self.runs, methods=["GET", "POST"]),
                Route("/api/v1/training/runs/{run}:watch", self.watch),
                Route("/api/v1/files", self.files, methods=["POST"]),
                Route("/api/v1/settings/{name}", self.setting, methods=["PATCH", "POST"]),
                Route("/api/v1/banners", self.banner, methods=["POST"]),
            ]
        )

    async def login(self, request: Request) -> Response:
        body = await request.json()
        if body["password"] != "right horse battery":
            return problem(401, "UNAUTHENTICATED", "Username or password is wrong.")
        if self.code and body.get("code") != self.code:
            return problem(401, "SECOND_FACTOR_REQUIRED", "This account has a second factor.")
        return self.tokens()

    async def refresh(self, request: Request) -> Response:
        self.refreshes.append((await request.json())["refresh_token"])
        self.access = f"access-{len(self.refreshes) + 1}"
        return self.tokens()

    def tokens(self) -> Response:
        number = len(self.refreshes)
        return JSONResponse({"access_token": self.access, "refresh_token": f"refresh-{number}", "expires_in": 600})

    def unauthorized(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {self.access}":
            return None
        return problem(401, "UNAUTHENTICATED", "The token has expired.")

    async def me(self, request: Request) -> Response:
        user = {"username": "ada", "id": "u1", "roles": ["admin"]}
        return self.unauthorized(request) or JSONResponse({"user": user, "permissions": ["*"], "scope": "all"})

    async def runs(self, request: Request) -> Response:
        if refused := self.unauthorized(request):
            return refused
        if request.method == "GET":
            return JSONResponse({"runs": [a_run("RUNNING", 4)], "next_page_token": ""})
        self.bodies.append(await request.json())
        violations = [{"field": "run.spec.stage", "description": "is missing", "reason": "REQUIRED"}]
        return problem(400, "INVALID_ARGUMENT", "The run cannot be planned.", violations=violations)

    async def watch(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        self.watches.append(last)
        if not last:  # the connection breaks off after the first event
            text = event(1, {"run": a_run("RUNNING", 1)}) + "data: {"
            headers = {"content-length": str(len(text) + 100)}
            return StreamingResponse(iter([text]), media_type="text/event-stream", headers=headers)
        return Response(event(2, {"run": a_run(self.last_state, 10)}), media_type="text/event-stream")

    async def setting(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        setting = {
            "name": request.path_params["name"].removesuffix(":reset"),
            "value": body.get("value", "90"),
            "origin": "SETTING_ORIGIN_DATABASE" if body else "SETTING_ORIGIN_DEFAULT",
            "variable": "ESPALIER_SESSION_DAYS",
            "description": "Days.",
            "allowed_values": [],
            "minimum": 1,
            "maximum": 3650,
        }
        return JSONResponse(setting)

    async def banner(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        return JSONResponse({"id": "b1", **self.bodies[-1]})

    async def files(self, request: Request) -> Response:
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return JSONResponse({"upload_id": f"{request.query_params['filename']} {size}"})


def event(identity: int, data: Any) -> str:
    return f"id: {identity}\ndata: {json.dumps(data)}\n\n"


def problem(status: int, reason: str, detail: str, **more: Any) -> Response:
    body = {"status": status, "reason": reason, "detail": detail, "request_id": "req-1", **more}
    return JSONResponse(body, status, media_type="application/problem+json")


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def server(platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(platform.app(), port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    monkeypatch.setenv("ESPALIER_SERVER", url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("ESPALIER_TOKEN", raising=False)
    yield url
    server.should_exit = True
    thread.join()


@pytest.fixture
def signed_in(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ESPALIER_PASSWORD", "right horse battery")
    assert run(["login", "-u", "ada"]) == 0
    return server


def test_a_wrong_password_ends_with_4_and_a_sentence(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESPALIER_PASSWORD", "wrong")
    assert run(["login", "-u", "ada"]) == 4
    told = capsys.readouterr().err
    assert "Username or password is wrong." in told
    assert "req-1" in told


def test_a_second_factor_is_asked_for_where_there_is_one(
    server: str, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESPALIER_PASSWORD", "right horse battery")
    platform.code = "123456"
    assert run(["login", "-u", "ada"]) == 4
    assert "has a second factor" in capsys.readouterr().err
    assert run(["login", "-u", "ada", "--code", "123456"]) == 0

    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda question, **_: asked.append(question) or "123456")
    assert run(["login", "-u", "ada"]) == 0
    assert asked == ["Code of your second factor"]


def test_who_is_signed_in_as_json(signed_in: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["whoami", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["user"]["username"] == "ada"


def test_an_expired_token_is_renewed_once_and_the_call_repeated(
    platform: FakePlatform, signed_in: str, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.access = "access-lost"
    assert run(["whoami"]) == 0
    assert platform.refreshes == ["refresh-0"]
    assert run(["whoami"]) == 0
    assert platform.refreshes == ["refresh-0"]


def test_wrong_input_ends_with_6_and_names_every_field(signed_in: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "create", "--name", "x"]) == 6
    told = capsys.readouterr().err
    assert "The run cannot be planned." in told
    assert "run.spec.stage: is missing" in told
    assert "req-1" in told


def test_runs_are_listed_as_a_table(signed_in: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "list"]) == 0
    told = capsys.readouterr().out
    assert RUN_ID in told
    assert "4/10" in told
    assert "\x1b" not in told


def test_watching_goes_on_after_a_cut_and_prints_no_bar(
    platform: FakePlatform, signed_in: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier_client.lookup.run_id", lambda _api, _reference: RUN_ID)
    monkeypatch.setattr("espalier_client.api.Api.get", lambda *_args, **_query: a_run("RUNNING", 0))
    assert run(["runs", "watch", "first"]) == 0
    assert platform.watches == ["", "1"]
    told = capsys.readouterr().err
    assert "step 10/10" in told
    assert "\r" not in told


def test_a_failed_run_ends_with_1_and_its_cause(
    platform: FakePlatform, signed_in: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.last_state = "FAILED"
    monkeypatch.setattr("espalier_client.api.Api.get", lambda *_args, **_query: a_run("RUNNING", 0))
    assert run(["runs", "watch", RUN_ID]) == 1
    assert "The learning rate is too high." in capsys.readouterr().err


def test_what_does_not_exist_ends_with_3(signed_in: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "get", "another"]) == 3
    assert "no run 'another'" in capsys.readouterr().err


def test_a_wrong_command_line_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "begin"]) == 2
    assert "begin" in capsys.readouterr().err


def test_a_platform_that_does_not_answer_ends_with_7(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(["runs", "list", "--server", "http://127.0.0.1:9"]) == 7
    assert "espalier up" in capsys.readouterr().err


def test_nobody_is_signed_in_says_what_to_do(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["whoami"]) == 4
    assert "espalier login" in capsys.readouterr().err


def test_interrupting_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("espalier_client.commands.runs.open_api", interrupted)
    assert run(["runs", "list"]) == 130


def test_a_setting_is_set_and_reset(platform: FakePlatform, signed_in: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings", "set", "auth.session_days", "30"]) == 0
    assert run(["settings", "reset", "auth.session_days"]) == 0
    assert platform.bodies == [{"value": "30"}, {}]
    told = capsys.readouterr().out
    assert "database" in told
    assert "1 to 3650" in told


def test_a_banner_is_made_with_its_times(
    platform: FakePlatform, signed_in: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["banners", "create", "Back at [six]", "--kind", "maintenance", "--end", "2026-12-01T18:00+00:00"]
    assert run(command) == 0
    (body,) = platform.bodies
    assert datetime.fromisoformat(body.pop("end_time")) == datetime(2026, 12, 1, 18, tzinfo=UTC)
    assert body == {"text": "Back at [six]", "kind": "BANNER_KIND_MAINTENANCE"}
    assert "Back at [six]" in capsys.readouterr().out
    assert run([*command[:-1], "tomorrow"]) == 2
    assert "--end must be a date or a time" in capsys.readouterr().err
