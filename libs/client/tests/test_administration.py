"""Users, invitations, sessions and statistics on the command line, against remembered calls."""

import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from espalier_client.__main__ import run
from espalier_client.api import Api
from espalier_client.credentials import CredentialStore
from espalier_client.errors import ClientError

USER: dict[str, Any] = {
    "id": "01940000-0000-7000-8000-00000000000a",
    "username": "mia",
    "display_name": "Mia",
    "email": "mia@example.org",
    "roles": ["tester"],
    "group_ids": ["01940000-0000-7000-8000-0000000000b1"],
    "disabled": False,
    "identity_provider": "",
    "last_login_time": "2026-11-24T05:00:00Z",
}
GROUP = {
    "id": "01940000-0000-7000-8000-0000000000b1",
    "name": "vision",
    "description": "",
    "roles": ["trainer"],
    "member_ids": [USER["id"]],
}
INVITATION = {
    "id": "01940000-0000-7000-8000-0000000000c1",
    "email": "",
    "roles": ["tester"],
    "group_ids": [],
    "url": "https://espalier.example.org/register#invitation=abc",
    "expire_time": "2026-12-01T00:00:00Z",
}
SESSION = {
    "id": "01940000-0000-7000-8000-0000000000d1",
    "device": "Firefox on Linux",
    "address": "192.0.2.7",
    "current": True,
}
STATISTICS = {
    "active_users": {"value": 3, "before": 2},
    "tokens": {"value": 12345},
    "success_rate": {"value": 0.5, "before": 1},
    "queue_wait_seconds": {"before": 65},
    "trained_tokens": {"value": 300},
    "top_users": [{"name": USER["id"], "label": "mia", "amount": 12000}],
}
FACTOR = {"enrolled": True, "enrol_time": "2026-11-24T05:00:00Z", "recovery_codes_left": 9, "required": False}
SECRET = {"secret": "GEZDGNBV", "otpauth_uri": "otpauth://totp/Espalier:mia?secret=GEZDGNBV"}
CODES = {"recovery_codes": ["abcd-efgh", "ijkl-mnop"]}
OF_FACTOR = "/api/v1/me/second-factor"
OF_USER = f"/api/v1/users/{USER['id']}"
ANSWERS: dict[str, Any] = {
    "/api/v1/users": {"users": [USER], "next_page_token": ""},
    OF_USER: USER,
    f"{OF_USER}:resetPassword": {"url": "https://espalier.example.org/reset#token=x", "expire_time": "2026-12-01"},
    f"{OF_USER}:endSessions": {"ended": 1},
    f"{OF_USER}:removeSecondFactor": {},
    f"{OF_FACTOR}:confirm": CODES,
    f"{OF_FACTOR}:newRecoveryCodes": CODES,
    f"{OF_FACTOR}:remove": {},
    "/api/v1/groups": {"groups": [GROUP], "next_page_token": ""},
    f"/api/v1/groups/{GROUP['id']}": GROUP,
    "/api/v1/me/sessions": {"sessions": [SESSION]},
    f"/api/v1/me/sessions/{SESSION['id']}": {},
    "/api/v1/me/sessions:endOthers": {"ended": 2},
    f"/api/v1/invitations/{INVITATION['id']}": {},
    "/api/v1/statistics": STATISTICS,
}


def test_the_command_says_what_it_is(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"agent": request.headers["user-agent"]})

    store = CredentialStore(tmp_path / "credentials.json")
    with Api("http://127.0.0.1:9", store=store, transport=httpx.MockTransport(answer)) as api:
        assert re.fullmatch(r"espalier/[0-9.]+ \((Linux|macOS|Windows)\)", api.get("/")["agent"])


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (404, "<html>Not here</html>", "answered 404, and not as an Espalier would: is it one?"),
        (404, '{"detail": "There is no user."}', "There is no user."),
        (502, "<html>Bad gateway</html>", "The platform answered 502."),
    ],
)
def test_an_answer_of_something_else_is_told_as_such(tmp_path: Path, status: int, content: str, told: str) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, text=content))
    api = Api("http://127.0.0.1:9", store=CredentialStore(tmp_path / "none.json"), transport=answer)
    with api, pytest.raises(ClientError) as refused:
        api.get("/api/v1/users")
    assert refused.value.message.endswith(told)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was called, as (method, path, body, query)."""
    made: list[tuple[Any, ...]] = []

    def call(self: Api, method: str, path: str, body: Any = None, *, query: Any = None) -> Any:
        made.append((method, path, body, query))
        if path == "/api/v1/invitations":
            return INVITATION if method == "POST" else {"invitations": [INVITATION], "next_page_token": ""}
        if path == OF_FACTOR:
            return SECRET if method == "POST" else FACTOR
        return ANSWERS[path]

    monkeypatch.setenv("ESPALIER_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("ESPALIER_TOKEN", "token")
    monkeypatch.setattr(Api, "call", call)
    return made


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["update", "mia", "-r", "trainer", "-r", "viewer"], {"roles": ["trainer", "viewer"]}),
        (["update", "mia", "--no-roles", "--display-name", "M"], {"roles": [], "display_name": "M"}),
        (["disable", "mia"], {"disabled": True}),
        (["enable", "mia"], {"disabled": False}),
    ],
)
def test_what_is_given_changes_and_nothing_else(
    calls: list[Any], arguments: list[str], changes: dict[str, Any]
) -> None:
    assert run(["users", *arguments]) == 0
    assert calls[-1] == ("PATCH", OF_USER, changes, {"update_mask": ",".join(changes)})


def test_a_change_of_nothing_ends_with_6(calls: list[Any]) -> None:
    assert run(["users", "update", "mia"]) == 6
    assert calls == []


def test_users_are_narrowed_by_what_they_are(calls: list[Any]) -> None:
    narrowed = ["-q", "mi", "--role", "tester", "--group", "vision", "--disabled", "--no-second-factor"]
    assert run(["users", "list", *narrowed]) == 0
    query = calls[-1][3]
    assert (query["query"], query["role"], query["group_id"], query["disabled"], query["second_factor_enrolled"]) == (
        "mi", "tester", GROUP["id"], "true", "false",
    )  # fmt: skip


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["users", "list"], [USER]),
        (["users", "show", "mia"], USER),
        (["groups", "show", "vision"], GROUP),
        (["invitations", "list"], [INVITATION]),
        (["sessions", "list"], [SESSION]),
        (["second-factor", "show"], FACTOR),
        (["second-factor", "recovery-codes", "--code", "123456"], CODES),
        (["statistics"], STATISTICS),
    ],
)
def test_programs_read_what_the_platform_answered(
    calls: list[Any], capsys: pytest.CaptureFixture[str], arguments: list[str], value: Any, form: str, read: Any
) -> None:
    assert run([*arguments, "-o", form]) == 0
    assert read(capsys.readouterr().out) == value


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["users", "show", "mia"], "mia@example.org"),
        (["users", "show", "mia"], "vision"),
        (["users", "reset-password", "mia"], "https://espalier.example.org/reset#token=x"),
        (["groups", "show", "vision"], "mia"),
        (["invitations", "create", "--role", "tester", "--group", "vision"], INVITATION["url"]),
        (["invitations", "list"], "anybody"),
        (["sessions", "list"], "Firefox on Linux"),
    ],
)
def test_people_read_what_they_asked_for(
    calls: list[Any], capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(arguments) == 0
    assert told in capsys.readouterr().out


def test_figures_stand_beside_those_before_and_nothing_measured_is_no_0(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["statistics", "--days", "7"]) == 0
    lines = {line[:18].strip(): line[18:].split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["active users"] == ["3", "2", "+50%"]
    assert lines["tokens"] == ["12,345", "-", "-"]
    assert lines["of them trained on"] == ["300", "-", "-"]
    assert lines["requests"] == ["-", "-", "-"]
    assert lines["success rate"] == ["50.0%", "100.0%", "-50%"]
    assert lines["queue wait"] == ["-", "1m", "5s", "-"]
    assert lines["top user mia"] == ["12,000", "tokens", "-", "-"]


@pytest.mark.parametrize(
    ("arguments", "method", "path"),
    [
        (["sessions", "end", str(SESSION["id"])], "DELETE", f"/api/v1/me/sessions/{SESSION['id']}"),
        (["sessions", "end-others"], "POST", "/api/v1/me/sessions:endOthers"),
        (["users", "end-sessions", "mia"], "POST", f"{OF_USER}:endSessions"),
        (["users", "remove-second-factor", "mia"], "POST", f"{OF_USER}:removeSecondFactor"),
        (["second-factor", "remove", "--code", "123456"], "POST", f"{OF_FACTOR}:remove"),
        (["invitations", "delete", str(INVITATION["id"])], "DELETE", f"/api/v1/invitations/{INVITATION['id']}"),
    ],
)
def test_what_is_taken_back_is_told(calls: list[Any], arguments: list[str], method: str, path: str) -> None:
    assert run(arguments) == 0
    assert calls[-1][:2] == (method, path)


def test_a_second_factor_is_enrolled_with_the_code_that_the_app_shows(
    calls: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("123456\n"))
    assert run(["second-factor", "enrol"]) == 0
    assert calls[-1][:3] == ("POST", f"{OF_FACTOR}:confirm", {"code": "123456"})
    told = capsys.readouterr()
    assert told.out.split() == CODES["recovery_codes"]
    assert SECRET["otpauth_uri"] in told.err

    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(["second-factor", "remove"]) == 2
    assert calls[-1][:2] != ("POST", f"{OF_FACTOR}:remove")
