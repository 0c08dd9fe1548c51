"""Quotas and usage on the command line, against remembered calls."""

from typing import Any

import pytest

from espalier_client.__main__ import run
from espalier_client.api import Api

USER = {"id": "01940000-0000-7000-8000-00000000000a", "username": "mia"}
GROUP = {"id": "01940000-0000-7000-8000-0000000000b1", "name": "vision"}
QUOTA: dict[str, Any] = {
    "id": "01940000-0000-7000-8000-0000000000f1",
    "user_id": USER["id"],
    "user_name": USER["username"],
    "group_id": "",
    "kind": "USAGE_KIND_GPU_SECONDS",
    "period": "QUOTA_PERIOD_MONTH",
    "amount": 36000,
    "used": 5400,
    "time_zone": "Asia/Kathmandu",
    "reset_time": "2026-11-30T18:15:00Z",
}
BY_WHOM = [
    {"kind": "USAGE_KIND_REQUESTS", "amount": 3, "user_id": USER["id"], "user_name": "mia", "group_id": GROUP["id"]},
    {"kind": "USAGE_KIND_REQUESTS", "amount": 1, "user_id": "eval", "group_id": GROUP["id"], "group_name": "vision"},
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was called, as (method, path, body, query)."""
    made: list[tuple[Any, ...]] = []
    time = "2026-11-24T00:00:00Z"
    rows = [
        {"time": time, "kind": "USAGE_KIND_TOKENS_IN", "amount": 1234, "model": "tuned-1", "estimated": 34},
        {"time": time, "kind": "USAGE_KIND_GPU_SECONDS", "amount": 5400, "model": "", "estimated": 0},
    ]
    answers = {
        "/api/v1/users": {"users": [USER], "next_page_token": ""},
        "/api/v1/quotas": {"quotas": [QUOTA], "next_page_token": ""},
        "/api/v1/me/usage": {"rows": rows, "truncated": False},
        "/api/v1/usage": {"rows": [], "truncated": False},
        "/api/v1/groups": {"groups": [GROUP], "next_page_token": ""},
    }

    def call(self: Api, method: str, path: str, body: Any = None, *, query: Any = None) -> Any:
        made.append((method, path, body, query))
        if path == "/api/v1/usage" and query.get("group_by"):
            return {"rows": BY_WHOM, "truncated": False}
        return answers[path] if method == "GET" else QUOTA

    monkeypatch.setenv("ESPALIER_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("ESPALIER_TOKEN", "token")
    monkeypatch.setattr(Api, "call", call)
    return made


def test_use_is_told_in_words_and_hours(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--by", "model", "--per", "day"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TIME", "WHAT", "AMOUNT", "MODEL"]
    assert lines[1].split()[1:] == ["tokens-in", "1,234", "(34", "estimated)", "tuned-1"]
    assert lines[2].split()[1:] == ["gpu-seconds", "1.50", "h", "-"]
    assert calls[0][3]["group_by"] == ["model"]
    assert calls[0][3]["grain"] == "USAGE_GRAIN_DAY"


def test_no_use_is_said_and_a_user_is_found_by_name(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--user", "mia"]) == 0

    assert capsys.readouterr().out == "Nothing was used.\n"
    assert calls[-1][1] == "/api/v1/usage"
    assert calls[-1][3]["user_id"] == USER["id"]


def test_users_and_groups_are_called_by_their_names(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--all", "--by", "user", "--by", "group"]) == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["WHAT", "AMOUNT", "USER", "GROUP"],
        # A group that one may not see has only its id; what is no user has only its name.
        ["requests", "3", "mia", GROUP["id"]],
        ["requests", "1", "eval", "vision"],
    ]


def test_a_limit_that_is_there_is_changed_and_another_is_made(calls: list[Any]) -> None:
    assert run(["quotas", "set", "gpu-hours", "20", "--user", "mia"]) == 0
    # Its calendar stays what it is.
    changes: dict[str, Any] = {"amount": 72000}
    assert calls[-1] == ("PATCH", f"/api/v1/quotas/{QUOTA['id']}", changes, {"update_mask": "amount"})
    assert run(["quotas", "set", "gpu-hours", "20", "--user", "mia", "--time-zone", "Asia/Tokyo"]) == 0
    changes["time_zone"] = "Asia/Tokyo"
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
    assert line.split("  ")[1:] == [
        "user mia", "gpu-hours", "1.50 h", "10.00 h", "month", "2026-12-01 00:00 Asia/Kathmandu"
    ]  # fmt: skip
    assert run(["quotas", "list", "--group", "vision"]) == 0
    assert (calls[-1][3]["group_id"], calls[-1][3].get("user_id")) == (GROUP["id"], None)

    assert run(["quotas", "delete", QUOTA["id"]]) == 0
    assert calls[-1][:2] == ("DELETE", f"/api/v1/quotas/{QUOTA['id']}")


@pytest.mark.parametrize(
    ("amount", "number"), [("1000", 1000), ("500MB", 500e6), ("1.5GiB", 1.5 * 2**30), ("2 kB", 2000), ("7B", 7)]
)
def test_bytes_come_in_units(calls: list[Any], amount: str, number: float) -> None:
    assert run(["quotas", "set", "stored-bytes", amount, "--user", "mia"]) == 0
    assert calls[-1][2]["amount"] == number


@pytest.mark.parametrize(("what", "amount"), [("stored-bytes", "2XB"), ("tokens", "2GB"), ("tokens", "many")])
def test_what_is_no_amount_is_a_wrong_command_line(
    calls: list[Any], capsys: pytest.CaptureFixture[str], what: str, amount: str
) -> None:
    assert run(["quotas", "set", what, amount, "--user", "mia"]) == 2
    assert f"{amount!r} is no amount of {what}" in capsys.readouterr().err
    assert calls == []


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
