"""Signing keys follow one another, and nobody is signed out by it."""

import asyncio
from datetime import timedelta
from typing import Any

import jwt
from sqlalchemy import select

from espalier.auth.v1 import service_pb2
from espalier_auth.keys import KEPT_AFTER_RETIREMENT, LEAD, MasterKey, SigningKeys
from espalier_auth.models import SigningKey
from espalier_common.db import utc_now


async def test_the_next_key_is_published_before_it_signs(auth: Any) -> None:
    first = _kid((await auth.login()).access_token)
    _keys(auth).rotate(even_if_young=True)
    published = await _published(auth)

    assert published[0] == first
    assert len(published) == 2
    assert _kid((await auth.login()).access_token) == first


async def test_tokens_of_both_keys_are_good_and_sessions_go_on_when_the_next_one_signs(
    auth: Any, start_auth: Any
) -> None:
    before = await auth.login()
    verifier = auth.verifier()
    keys = _keys(auth)
    keys.rotate(even_if_young=True)
    _let_pass(auth, LEAD)
    keys.rotate()
    # Another process, which has not signed yet, shows what every process does when it looks again.
    replica = await start_auth()
    after = await replica.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=before.refresh_token))

    assert _kid(after.access_token) != _kid(before.access_token)
    for pair in (before, after):
        assert (await asyncio.to_thread(verifier.verify, pair.access_token)).name == "admin"
    assert await _published(replica) == [_kid(after.access_token), _kid(before.access_token)]


async def test_a_retired_key_goes_when_nothing_lives_that_it_signed(auth: Any) -> None:
    keys = _keys(auth)
    first = _kid((await auth.login()).access_token)
    keys.rotate(even_if_young=True)
    _let_pass(auth, LEAD)
    keys.rotate()
    assert first in await _published(auth)
    _let_pass(auth, KEPT_AFTER_RETIREMENT + timedelta(seconds=1))
    keys.rotate()

    published = await _published(auth)
    assert len(published) == 1
    assert first not in published


async def test_a_key_is_followed_when_it_is_old_and_once_only(auth: Any) -> None:
    await auth.login()
    young, old = _keys(auth), _keys(auth, max_age=timedelta(0))
    young.rotate()
    assert len(await _published(auth)) == 1
    await asyncio.gather(*(asyncio.to_thread(old.rotate) for _ in range(8)))

    assert len(await _published(auth)) == 2


def _keys(auth: Any, **settings: Any) -> SigningKeys:
    return SigningKeys(auth.database, MasterKey(auth.settings.master_key_bytes()), **settings)


def _let_pass(auth: Any, time: timedelta) -> None:
    with auth.database.transaction() as session:
        for key in session.scalars(select(SigningKey)):
            key.created_at -= time
            key.signs_from = (key.signs_from or utc_now()) - time
            key.retired_at = key.retired_at and key.retired_at - time


def _kid(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


async def _published(auth: Any) -> list[str]:
    return [key.kid for key in (await auth.sign_in().GetJwks(service_pb2.GetJwksRequest())).keys]
