"""The secrets of authenticators are sealed with the master key, and go along when it changes."""

import secrets
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import select

from espalier_auth.assembly import ROTATE_MASTER_KEY, build
from espalier_auth.keys import MasterKey
from espalier_auth.models import SigningKey
from espalier_auth.second_factor.models import SecondFactor
from espalier_common.settings import SettingsError

from .answers import refusal


async def test_a_new_master_key_seals_the_secrets_and_their_codes_go_on(
    auth: Any, start_auth: Any, owner_at: Any
) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    new = secrets.token_hex(32)
    replica = await start_auth(master_key=new, former_master_key=auth.settings.master_key)
    # The replica of before made one meanwhile; the next call seals it.
    otto = await (await owner_at(auth, "otto")).enrol()
    assert len(key_ids(auth)) == 2
    # Where the new key is not known yet, the sign-in is to be tried again: nothing is counted as wrong.
    assert await refusal(mia.login(mia.next_code())) == ("UNAVAILABLE", "SECOND_FACTOR_SEALED")
    build(replica.settings).commands[ROTATE_MASTER_KEY]()

    assert key_ids(auth) == {MasterKey(bytes.fromhex(new)).id}
    after = await start_auth(master_key=new)
    for owner in (mia, otto):
        owner.auth = after
        assert (await owner.login(owner.next_code())).access_token


async def test_a_secret_opens_for_its_user_and_its_purpose_alone(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    key = MasterKey(auth.settings.master_key_bytes())
    with auth.database.transaction() as session:
        factor = session.scalars(select(SecondFactor)).one()
        sealed, user_id = factor.sealed_secret, factor.user_id

    assert key.open(sealed, bound_to=user_id, purpose="second factors") == mia.secret
    for bound_to, purpose in ((user_id, "signing keys"), (secrets.token_hex(8), "second factors")):
        with pytest.raises(InvalidTag):
            key.open(sealed, bound_to=bound_to, purpose=purpose)


async def test_a_secret_that_does_not_open_leaves_everything_as_it_was(
    auth: Any, start_auth: Any, owner_at: Any
) -> None:
    await (await owner_at(auth, "mia")).enrol()
    with auth.database.transaction() as session:
        factor = session.scalars(select(SecondFactor)).one()
        factor.sealed_secret = factor.sealed_secret[:-1] + bytes([factor.sealed_secret[-1] ^ 1])

    with pytest.raises(SettingsError, match="The second factor of user"):
        await start_auth(master_key=secrets.token_hex(32), former_master_key=auth.settings.master_key)
    present = MasterKey(auth.settings.master_key_bytes()).id
    assert key_ids(auth) == {present}
    with auth.database.transaction() as session:
        assert set(session.scalars(select(SigningKey.master_key_id))) == {present}


def key_ids(auth: Any) -> set[str]:
    with auth.database.transaction() as session:
        return set(session.scalars(select(SecondFactor.master_key_id)))
