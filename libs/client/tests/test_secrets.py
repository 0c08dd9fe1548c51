import hashlib
import stat
from pathlib import Path

import pytest

from espalier_client.errors import PlatformError
from espalier_client.local import secrets


def load(path: Path, *services: str) -> secrets.Secrets:
    return secrets.load_or_create(path, services=services, nats_users=services)


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = load(path, "auth", "chat")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path, "auth", "chat") == first
    assert len(bytes.fromhex(first.master_key)) == 32


def test_a_new_service_gets_secrets_and_the_others_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    before = load(path, "auth")
    after = load(path, "auth", "eval")
    assert after.values.items() > before.values.items()
    assert after.database("eval") != after.service("eval")


def test_auth_gets_hashes_alone(tmp_path: Path) -> None:
    kept = load(tmp_path / "secrets.json", "auth", "chat")
    assert kept.service_hashes(["chat"]) == {"chat": hashlib.sha256(kept.service("chat").encode()).hexdigest()}


def test_broken_secrets_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text('{"postgres": ')
    with pytest.raises(PlatformError, match="broken"):
        load(path, "auth")
    assert path.read_text() == '{"postgres": '
