"""Log lines and what they never say; permissions; settings."""

import json
import logging
import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from espalier_common.rpc.context import accept_request_id
from espalier_common.rpc.permissions import all_permissions, all_services
from espalier_common.settings import ServiceSettings, SettingsError, split_address
from espalier_common.telemetry import JsonFormatter, redact, request_id_var, serve_metrics


def line(event: str, **fields: Any) -> dict[str, Any]:
    record = logging.LogRecord("a.b", logging.INFO, "", 0, "%s", (event,), sys.exc_info())
    record.fields = fields
    return dict(json.loads(JsonFormatter("auth").format(record)))


def test_an_event_is_one_json_line_with_its_fields() -> None:
    written = line("100% done", run_id="r", count=3, when=object)
    assert (written["event"], written["service"], written["level"]) == ("100% done", "auth", "info")
    assert (written["run_id"], written["count"]) == ("r", 3)
    assert "request_id" not in written


def test_the_request_id_of_the_call_is_in_the_line() -> None:
    request_id_var.set("r-9")
    assert line("x")["request_id"] == "r-9"
    request_id_var.set("")


def test_the_time_of_a_line_is_utc_and_says_so() -> None:
    written = datetime.fromisoformat(line("x")["time"])
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", 'a", "level": "error'])
def test_a_line_break_in_what_is_logged_makes_no_second_line(text: str) -> None:
    record = logging.LogRecord("a.b", logging.INFO, "", 0, "%s", (text,), None)
    record.fields = {"username": text}
    written = JsonFormatter("auth").format(record)
    assert not {"\n", "\r"} & set(written)
    assert (json.loads(written)["event"], json.loads(written)["username"]) == (text, text)


def test_a_traceback_stays_on_its_line() -> None:
    try:
        json.loads("a\nb")
    except ValueError:
        assert "JSONDecodeError" in line("failed")["exception"]


@pytest.mark.parametrize(
    "key", ["password", "new_password", "Authorization", "api_key", "access_token", "client_secret", "cookie"]
)
def test_secrets_are_redacted_however_deep(key: str) -> None:
    written = line("x", **{key: "s3cret", "inner": {"list": [{key: "s3cret"}]}})
    assert "s3cret" not in json.dumps(written)


def test_counts_of_language_tokens_are_no_secrets() -> None:
    assert redact("train/tokens_per_second", 12) == 12


def test_a_request_id_is_kept_only_when_harmless() -> None:
    assert accept_request_id("abc-1.2:3_4") == "abc-1.2:3_4"
    for harmful in (None, "", "a b", "a\nb", "x" * 129, "é"):
        assert accept_request_id(harmful) not in {harmful, ""}


def test_every_rpc_of_the_platform_says_what_it_requires() -> None:
    from espalier_common.rpc.permissions import requirement

    assert [m.full_name for service in all_services() for m in service.methods if not requirement(m)] == []


def test_permissions_are_sorted_and_name_their_rpcs() -> None:
    found = all_permissions()
    names = [permission.name for permission in found]
    assert names == sorted(set(names))
    assert not {"", "PUBLIC", "AUTHENTICATED"} & set(names)
    assert all(permission.rpcs for permission in found)


def test_settings_come_from_the_environment_and_hide_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_DATABASE_URL", "postgresql+psycopg2://a:hidden@h/d")
    monkeypatch.setenv("ESPALIER_SERVICE_SECRET", "hidden")
    monkeypatch.setenv("ESPALIER_SERVICES", '{"auth": "127.0.0.1:7001"}')
    settings = ServiceSettings()
    assert settings.address_of("auth") == "127.0.0.1:7001"
    assert settings.service_secret.get_secret_value() == "hidden"
    assert "hidden" not in repr(settings)
    with pytest.raises(SettingsError, match="no address of 'chat'; it names auth"):
        settings.address_of("chat")


def test_addresses_are_split() -> None:
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:80") == ("::1", 80)
    for wrong in ("", "host", "host:", ":80", "host:99999"):
        with pytest.raises(ValueError, match=r"host:port|[Pp]ort"):
            split_address(wrong)


def test_metrics_on_a_port_that_is_taken_name_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"{listen}.*ESPALIER_METRICS_LISTEN"):
            serve_metrics(listen)
