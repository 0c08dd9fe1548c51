import stat
from pathlib import Path

from espalier_client.credentials import CredentialStore, Tokens

TOKENS = Tokens(access_token="a", refresh_token="r", expires_at=1.0, username="ada")


def test_tokens_are_kept_by_server_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    store = CredentialStore(tmp_path / "espalier" / "credentials.json")
    with store.locked():
        store.put("http://one", TOKENS)
    assert store.get("http://one") == TOKENS
    assert store.get("http://two") is None
    assert store.last_server() == "http://one"
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    with store.locked():
        store.remove("http://one")
    assert store.get("http://one") is None


def test_a_broken_file_counts_as_signed_out(tmp_path: Path) -> None:
    store = CredentialStore(tmp_path / "credentials.json")
    store.path.write_text("{")
    assert store.get("http://one") is None


def test_tokens_do_not_show_themselves() -> None:
    assert "a" not in repr(TOKENS).split("username")[0].replace("Tokens(expires_at=1.0, ", "")
