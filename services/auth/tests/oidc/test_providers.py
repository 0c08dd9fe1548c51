"""Providers are read from the settings, and a mistake is told without the secrets in it."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from espalier_auth.oidc.providers import read_providers
from espalier_auth.settings import AuthSettings

ONE = {"name": "corporate", "issuer": "https://login.example.org", "client_id": "espalier", "client_secret": "hidden-1"}


def test_a_list_is_read_from_the_setting_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "providers.json"
    file.write_text(json.dumps([ONE]), "utf-8")

    (provider,) = read_providers(json.dumps([ONE]))
    assert (provider.title, provider.client_secret.get_secret_value()) == ("corporate", "hidden-1")
    assert read_providers(str(file)) == (provider,)
    assert read_providers(" ") == ()
    assert "hidden-1" not in repr(provider)


@pytest.mark.parametrize(
    ("providers", "said"),
    [
        ([{**ONE, "issuer": "http://login.example.org"}], "https://"),
        ([{**ONE, "issuer": "https://login.example.org?x=1"}], "https://"),
        ([{**ONE, "algorithms": ["HS256"]}], "algorithms"),
        ([{**ONE, "algorithms": ["none"]}], "algorithms"),
        ([{**ONE, "name": "a/b"}], "name"),
        ([{**ONE, "acr_values": ["two factors"]}], "acr_values"),
        ([{**ONE, "scopes": ["email"]}], "openid"),
        ([{**ONE, "cilent_id": "x"}], "cilent_id"),
        ([ONE, ONE], "the same name"),
        ([ONE, {**ONE, "name": "other"}], "the same issuer"),
        ([{"name": "x"}], "issuer"),
    ],
)
def test_a_mistake_is_told_without_the_secret(providers: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_providers(json.dumps(providers))
    assert "hidden-1" not in str(refused.value)


@pytest.mark.parametrize("text", ["[", "/no/such/file", "[1]", "nonsense"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither|cannot be read|is wrong"):
        read_providers(text)


def test_auth_does_not_start_with_providers_and_without_its_public_address() -> None:
    values = {"database_url": "postgresql+psycopg2://x", "master_key": secrets.token_hex(32)}
    with pytest.raises(ValidationError, match="ESPALIER_PUBLIC_URL is missing"):
        AuthSettings(**values, oidc_providers=json.dumps([ONE]))
    settings = AuthSettings(**values, oidc_providers=json.dumps([ONE]), public_url="https://e.example.org/")
    assert settings.public_url == "https://e.example.org"
    assert "hidden-1" not in repr(settings)
