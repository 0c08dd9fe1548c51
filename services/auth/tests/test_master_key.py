"""The master key changes: what it sealed is sealed anew, at once or not at all, and nobody is signed out."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import select

from espalier.auth.v1 import service_pb2
from espalier_auth.assembly import ROTATE_MASTER_KEY, build
from espalier_auth.keys import MasterKey, SigningKeys
from espalier_auth.models import SigningKey
from espalier_auth.settings import AuthSettings
from espalier_common.settings import SettingsError


async def test_a_new_master_key_seals_all_keys_and_signs_nobody_out(auth: Any, start_auth: Any) -> None:
    before = await auth.login()
    _keys(auth).rotate(even_if_young=True)
    new = secrets.token_hex(32)
    replica = await start_auth(master_key=new, former_master_key=auth.settings.master_key)

    rows = _rows(auth)
    assert len(rows) == 2
    assert {row.master_key_id for row in rows} == {MasterKey(bytes.fromhex(new)).id}
    for row in rows:
        MasterKey(bytes.fromhex(new)).open(row.sealed_private_key, bound_to=row.kid)
        with pytest.raises(InvalidTag):
            MasterKey(auth.settings.master_key_bytes()).open(row.sealed_private_key, bound_to=row.kid)
    # The process of before goes on with what it opened, and the next one needs the former key no more.
    during = await auth.login()
    after = await start_auth(master_key=new)
    renewed = await after.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=before.refresh_token))
    for pair in (before, during, renewed):
        assert (await asyncio.to_thread(replica.verifier().verify, pair.access_token)).name == "admin"


async def test_what_the_former_process_made_meanwhile_is_sealed_by_the_next_call(auth: Any, start_auth: Any) -> None:
    new = secrets.token_hex(32)
    replica = await start_auth(master_key=new, former_master_key=auth.settings.master_key)
    _keys(auth).rotate(even_if_young=True)
    command = build(replica.settings).commands[ROTATE_MASTER_KEY]
    assert len({row.master_key_id for row in _rows(auth)}) == 2
    command()
    kept = [(row.kid, row.master_key_id, row.sealed_private_key) for row in _rows(auth)]
    command()

    assert len({master_key_id for _, master_key_id, _ in kept}) == 1
    assert [(row.kid, row.master_key_id, row.sealed_private_key) for row in _rows(auth)] == kept


async def test_a_key_that_does_not_open_leaves_everything_as_it_was(auth: Any) -> None:
    _keys(auth).rotate(even_if_young=True)
    with auth.database.transaction() as session:
        damaged = session.scalars(select(SigningKey).order_by(SigningKey.created_at.desc())).first()
        damaged.sealed_private_key = damaged.sealed_private_key[:-1] + bytes([damaged.sealed_private_key[-1] ^ 1])
    kept = {row.kid: row.sealed_private_key for row in _rows(auth)}
    keys = SigningKeys(
        auth.database,
        MasterKey(secrets.token_bytes(32)),
        former=MasterKey(auth.settings.master_key_bytes()),
    )

    with pytest.raises(SettingsError, match="is damaged"):
        keys.reseal()
    assert {row.kid: row.sealed_private_key for row in _rows(auth)} == kept
    assert {row.master_key_id for row in _rows(auth)} == {MasterKey(auth.settings.master_key_bytes()).id}


async def test_a_wrong_former_key_is_told_with_a_sentence(auth: Any, start_auth: Any) -> None:
    with pytest.raises(SettingsError, match="is not the key that sealed"):
        await start_auth(master_key=secrets.token_hex(32), former_master_key=secrets.token_hex(32))


@pytest.mark.slow
def test_the_command_changes_the_key_and_says_what_it_lacks(auth_settings: Callable[..., AuthSettings]) -> None:
    settings = auth_settings()
    for prepare in build(settings).on_start:
        prepare()
    new, former = secrets.token_hex(32), settings.master_key.get_secret_value()
    variables = {
        "ESPALIER_DATABASE_URL": settings.database_url,
        "ESPALIER_NATS_URL": settings.nats_url,
        "ESPALIER_MASTER_KEY": new,
    }
    lacking = _command(variables)
    done = _command(variables | {"ESPALIER_FORMER_MASTER_KEY": former})

    assert lacking.returncode == 78
    assert "ESPALIER_FORMER_MASTER_KEY is missing" in lacking.stderr
    assert done.returncode == 0, done.stderr
    assert "sealed_anew" in done.stdout + done.stderr
    for secret in (new, former):
        assert secret not in done.stdout + done.stderr + lacking.stderr
    for prepare in build(auth_settings(master_key=new)).on_start:
        prepare()


def _command(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    return subprocess.run(
        [sys.executable, "-m", "espalier_auth", "rotate-master-key"],
        env=others | variables, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def _keys(auth: Any) -> SigningKeys:
    return SigningKeys(auth.database, MasterKey(auth.settings.master_key_bytes()))


def _rows(auth: Any) -> list[SigningKey]:
    with auth.database.transaction() as session:
        return list(session.scalars(select(SigningKey).order_by(SigningKey.created_at)))
