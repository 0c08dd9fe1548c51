"""Auth refuses to start with settings that would make it unsafe, and says what to write."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from espalier_auth.settings import AuthSettings, decode_master_key

RANDOM = hashlib.sha256(b"the same at every run").digest()


@pytest.mark.parametrize(
    "text",
    [
        RANDOM.hex(),
        RANDOM.hex().upper(),
        base64.b64encode(RANDOM).decode(),
        base64.urlsafe_b64encode(RANDOM).decode().rstrip("="),
        f" {RANDOM.hex()}\n",
    ],
)
def test_a_master_key_is_hex_or_base64(text: str) -> None:
    assert decode_master_key(text) == RANDOM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least 32 random bytes"),
        ("changeme", "at least 32 random bytes"),
        (RANDOM[:31].hex(), "it carries 31"),
        ("0" * 64, "is not random"),
        ("ab" * 32, "is not random"),
        ("not base64 at all!", "neither hex nor base64"),
    ],
)
def test_a_short_or_made_up_master_key_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_master_key(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"master_key": "c2hvcnQ="}, "random bytes"),
        ({"admin_password": "short"}, "at least 12 characters"),
        ({"service_secret_hashes": {"chat": "plain secret"}}, "SHA-256 in hex"),
        ({"database_url": ""}, "ESPALIER_DATABASE_URL is missing"),
        ({"refresh_token_days": 0}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_stops_the_start(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"database_url": "postgresql+psycopg2://x", "master_key": RANDOM.hex()}
    with pytest.raises(ValidationError, match=message) as refused:
        AuthSettings(**(values | change))
    assert "plain secret" not in str(refused.value)


def test_settings_show_no_secret(auth_settings: Callable[..., AuthSettings]) -> None:
    settings = auth_settings()

    assert settings.master_key.get_secret_value() not in repr(settings)
    assert "correct horse battery" not in repr(settings)
