"""Quotas and usage on the command line, against remembered calls."""

from typing import Any

import pytest

from espalier_client.__main__ import run
from espalier_client.api import Api

USER = {"id": "01940000-0000-7000-8000-00000000000a", "username": "mia"}
QUOTA: dict[str, Any] = {
    "id": "01940000-0000-7000-8000-0000000000f1",
    "user_id": USER["id"],
    "group_id": "",
    "kind": "USAGE_KIND_GPU_SECONDS",
    "period": "QUOTA_PERIOD_MONTH",
    "amount": 36000,
    "used": 5400,
    "time_zone": "UTC",
    "reset_time": "2026-12-01T00:00:00Z",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was called, as (method, path, body, query)."""
    made: list[tuple[Any, ...]] = []
    rows = [
        {"time": "2026-11-24T00:00:00Z", "kind": "USAGE_KIND_TOKENS_IN", "amount": 1234, "model": "tuned-1"},
        {"time": "2026-11-24T00:00:00Z", "kind": "USAGE_KIND_GPU_SECONDS", "amount": 5400, "model": ""},
    ]
    answers = {
        "/api/v1/users": {"users": [USER], "next_page_token": ""},
        "/api/v1/quotas": {"quotas": [QUOTA], "next_page_token": ""},
        "/api/v1/me/usage": {"rows": rows, "truncated": False},
        "/api/v1/usage": {"rows": [], "truncated": False},
    }

    def call(self: Api, method: str, path: str, body: Any = None, *, query: Any = None) -> Any:
        made.append((method, path, body, query))
        return answers[path] if method == "GET" else QUOTA

    monkeypatch.setenv("ESPALIER_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("ESPALIER_TOKEN", "token")
    monkeypatch.setattr(Api, "call", call)
    return made


def test_use_is_told_in_words_and_hours(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--by", "model", "--per", "day"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TIME", "WHAT", "AMOUNT", "MODEL"]
    assert lines[1].split()[1:] == ["tokens-in", "1,234", "tuned-1"]
    assert lines[2].split()[1:] == ["gpu-seconds", "1.50", "h", "-"]
    assert calls[0][3]["group_by"] == ["model"]
    assert calls[0][3]["grain"] == "USAGE_GRAIN_DAY"


def test_no_use_is_said_and_a_user_is_found_by_name(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--user", "mia"]) == 0

    assert capsys.readouterr().out == "Nothing was used.\n"
    assert calls[-1][1] == "/api/v1/usage"
    assert calls[-1][3]["user_id"] == USER["id"]


def test_a_limit_that_is_there_is_changed_and_another_is_made(calls: list[Any]) -> None:
    assert run(["quotas", "set", "gpu-hours", "20", "--user", "mia"]) == 0
    changes = {"amount": 72000, "time_zone": "UTC"}
    assert calls[-1] == ("PATCH", f"/api/v1/quotas/{QUOTA['id']}", changes, {"update_mask": "amount,time_zone"})

    assert run(["quotas", "set", "tokens", "1000", "--user", "mia", "--time-zone", "Europe/Berlin"]) == 0
    method, path, body, _ = calls[-1]
    assert (method, path, body["kind"], body["period"]) == (
        "POST", "/api/v1/quotas", "USAGE_KIND_TOKENS_IN", "QUOTA_PERIOD_DAY",
    )  # fmt: skip


def test_limits_are_listed_with_what_is_used_and_deleted_by_id(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quotas", "list"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert "1.50 h" in line
    assert "10.00 h" in line
    assert "month" in line

    assert run(["quotas", "delete", QUOTA["id"]]) == 0
    assert calls[-1][:2] == ("DELETE", f"/api/v1/quotas/{QUOTA['id']}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokens", "5"],
        ["tokens", "5", "--user", "mia", "--group", "g"],
        ["concurrent-runs", "1", "--user", "mia", "--per", "day"],
    ],
)
def test_a_limit_that_binds_nobody_or_makes_no_sense_ends_with_6(calls: list[Any], arguments: list[str]) -> None:
    assert run(["quotas", "set", *arguments]) == 6
    assert calls == []
