"""The signing key: one for all processes, sealed at rest, opened by the master key alone."""

import asyncio
import secrets
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from espalier.auth.v1 import service_pb2
from espalier_auth.keys import MasterKey, SigningKeys
from espalier_auth.models import SigningKey
from espalier_common.settings import SettingsError


async def test_the_key_set_verifies_what_was_signed(auth: Any) -> None:
    token = (await auth.login()).access_token
    keys = (await auth.sign_in().GetJwks(service_pb2.GetJwksRequest())).keys

    assert [(key.kty, key.crv, key.alg, key.use) for key in keys] == [("OKP", "Ed25519", "EdDSA", "sig")]
    jwk = jwt.PyJWK({"kty": keys[0].kty, "crv": keys[0].crv, "x": keys[0].x}, algorithm="EdDSA")
    assert jwt.decode(token, jwk, algorithms=["EdDSA"], audience="espalier")["name"] == "admin"


async def test_the_private_key_is_sealed_in_the_database(auth: Any) -> None:
    row = _row(auth)
    master_key = MasterKey(auth.settings.master_key_bytes())
    raw = master_key.open(row.sealed_private_key, bound_to=row.kid)

    assert Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw() == row.public_key
    with auth.database.engine.connect() as connection:
        dump = "".join(str(list(connection.exec_driver_sql("SELECT * FROM signing_keys"))))
    assert raw.hex() not in dump
    assert auth.settings.master_key.get_secret_value() not in dump


async def test_a_sealed_key_opens_in_its_own_row_alone(auth: Any) -> None:
    row = _row(auth)
    with pytest.raises(InvalidTag):
        MasterKey(auth.settings.master_key_bytes()).open(row.sealed_private_key, bound_to="another")


async def test_a_restart_signs_with_the_same_key(start_auth: Any) -> None:
    before, after = await start_auth(), await start_auth()
    token = (await before.login()).access_token

    assert (await asyncio.to_thread(after.verifier().verify, token)).name == "admin"


async def test_processes_that_start_together_agree_on_one_key(auth: Any) -> None:
    with auth.database.transaction() as session:
        session.delete(session.scalars(select(SigningKey)).one())
    master_key = MasterKey(auth.settings.master_key_bytes())
    processes = [SigningKeys(auth.database, master_key) for _ in range(8)]
    await asyncio.gather(*(asyncio.to_thread(keys.load) for keys in processes))

    assert {jwt.get_unverified_header(keys.sign({}, token_type="x"))["kid"] for keys in processes} == {_row(auth).kid}


async def test_another_master_key_stops_the_start_with_a_sentence(start_auth: Any) -> None:
    await start_auth()
    with pytest.raises(SettingsError, match="ESPALIER_MASTER_KEY is not the key that sealed"):
        await start_auth(master_key=secrets.token_hex(32))


async def test_a_damaged_key_stops_the_start_with_a_sentence(auth: Any, start_auth: Any) -> None:
    with auth.database.transaction() as session:
        row = session.scalars(select(SigningKey)).one()
        row.sealed_private_key = row.sealed_private_key[:-1] + bytes([row.sealed_private_key[-1] ^ 1])

    with pytest.raises(SettingsError, match="is damaged"):
        await start_auth()


def _row(auth: Any) -> SigningKey:
    with auth.database.transaction() as session:
        key: SigningKey = session.scalars(select(SigningKey)).one()
        return key
