"""API keys: made once, worth what their owner may do, ended at once."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select, update

from espalier.auth.v1 import access_pb2, access_pb2_grpc, resources_pb2, service_pb2
from espalier_auth.access.models import ApiKey
from espalier_auth.access.repository import delete_expired_keys
from espalier_auth.housekeeping import KEYS_KEPT
from espalier_common.api_keys import exchange_at
from espalier_common.db import utc_now
from espalier_common.errors import EspalierError
from espalier_common.identity import Principal, TokenVerifier
from espalier_common.public_keys import fetch_jwks
from espalier_common.rpc.status import from_rpc_error
from espalier_common.rpc.timestamps import timestamp

PASSWORD = "a quiet green lamp"


async def test_a_key_is_shown_once_and_kept_as_its_hash(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    made = await _create(keys, "nightly")
    listed = (await keys.ListApiKeys(access_pb2.ListApiKeysRequest())).api_keys

    assert made.key.startswith("esp_")
    assert [(key.name, key.key, key.last_four) for key in listed] == [("nightly", "", made.key[-4:])]
    with auth.database.transaction() as session:
        stored = session.scalars(select(ApiKey)).one()
        assert stored.key_hash == hashlib.sha256(made.key.encode()).digest()


async def test_a_key_calls_in_the_name_of_its_owner_with_its_own_permissions(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["trainer"])
    made = await _create(keys, "lists runs", permissions=["training.runs.list", "auth.roles.list"])

    principal = await _verify(auth, made.key)

    assert (principal.name, principal.kind, principal.scope) == ("mia", "user", "own")
    assert principal.permissions == {"training.runs.list", "auth.roles.list"}
    me = await auth.users(made.key).GetMe(service_pb2.GetMeRequest())
    assert (me.user.username, list(me.permissions)) == ("mia", ["auth.roles.list", "training.runs.list"])
    assert (await auth.users(made.key).ListRoles(service_pb2.ListRolesRequest())).roles
    assert (await _refusal(auth.users(made.key).ListUsers(service_pb2.ListUsersRequest()))).code == "PERMISSION_DENIED"


async def test_a_key_without_a_list_has_all_that_its_owner_may_do_and_never_more(auth: Any) -> None:
    mia = await auth.create_user("mia", roles=["viewer", "trainer"])
    made = await _create(await _keys(auth, "mia"), "everything")
    narrow = await _create(await _keys(auth, "mia"), "narrow", permissions=["training.runs.create"])
    assert (await _verify(auth, made.key)).may("training.runs.create")

    await _give(auth, mia.id, ["viewer"])

    assert not (await _verify(auth, made.key)).may("training.runs.create")
    assert (await _verify(auth, made.key)).may("training.runs.list")
    assert (await _verify(auth, narrow.key)).permissions == frozenset()


async def test_a_key_is_refused_permissions_that_its_owner_does_not_have(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["tester"])

    for permission in ("auth.users.create", "training.workloads.create", "*", "no.such.permission"):
        error: Any = await _refusal(_create(keys, "above", permissions=["models.models.list", permission]))
        assert [(found.field, found.reason) for found in error.violations] == [("api_key.permissions[1]", "NOT_YOURS")]


async def test_a_key_ends_with_its_deletion_its_time_and_its_owner(auth: Any) -> None:
    mia = await auth.create_user("mia", roles=["viewer"])
    keys = await _keys(auth, "mia")
    deleted, expired, left = [await _create(keys, name) for name in ("deleted", "expired", "left")]

    await keys.DeleteApiKey(access_pb2.DeleteApiKeyRequest(api_key_id=deleted.id))
    with auth.database.transaction() as session:
        session.execute(
            update(ApiKey).where(ApiKey.id == expired.id).values(expires_at=utc_now() - timedelta(seconds=1))
        )
    assert (await _verify(auth, left.key)).name == "mia"
    disabled = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=mia.id, disabled=True))
    disabled.update_mask.paths.append("disabled")
    await (await auth.admin()).UpdateUser(disabled)

    for key in (deleted.key, expired.key, left.key, left.key[:-1], f"{left.key}x", "esp_", "esp_nonsense"):
        assert (await _refusal(_exchange(auth, key))).reason in {"INVALID_API_KEY", "INVALID_ARGUMENT"}


async def test_an_expired_key_is_listed_for_a_month_and_then_forgotten(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    lately, long_ago, never = [await _create(keys, name) for name in ("lately", "long ago", "never")]
    with auth.database.transaction() as session:
        for key, since in ((lately, timedelta(days=29)), (long_ago, timedelta(days=31))):
            session.execute(update(ApiKey).where(ApiKey.id == key.id).values(expires_at=utc_now() - since))

    with auth.database.transaction() as session:
        delete_expired_keys(session, utc_now() - KEYS_KEPT)

    listed = (await keys.ListApiKeys(access_pb2.ListApiKeysRequest())).api_keys
    assert {key.id for key in listed} == {lately.id, never.id}


async def test_a_key_whose_time_is_over_is_not_made(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    past = access_pb2.ApiKey(name="late\u202e", expire_time=timestamp(utc_now() - timedelta(minutes=1)))

    error: Any = await _refusal(keys.CreateApiKey(access_pb2.CreateApiKeyRequest(api_key=past)))

    assert [found.field for found in error.violations] == ["api_key.name", "api_key.expire_time"]


async def test_what_a_key_is_exchanged_for_ends_with_the_key(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    soon = access_pb2.ApiKey(name="soon", expire_time=timestamp(utc_now() + timedelta(seconds=90)))
    made = await keys.CreateApiKey(access_pb2.CreateApiKeyRequest(api_key=soon))

    exchanged = await _exchange(auth, made.key)
    token, kept = exchanged.access_token, exchanged.keep_seconds
    principal = await asyncio.to_thread(auth.verifier().verify, token)
    assert principal.expires_at <= soon.expire_time.seconds + 1
    with auth.database.transaction() as session:
        sooner = utc_now() + timedelta(seconds=kept - 0.1)
        session.execute(update(ApiKey).where(ApiKey.id == made.id).values(expires_at=sooner))
    assert (await _exchange(auth, made.key)).keep_seconds < kept
    await keys.DeleteApiKey(access_pb2.DeleteApiKeyRequest(api_key_id=made.id))

    async def is_refused() -> bool:
        try:
            await auth.users(token).GetMe(service_pb2.GetMeRequest())
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason == "TOKEN_REVOKED"
        return False

    async with asyncio.timeout(60):
        while not await is_refused():
            await asyncio.sleep(0.1)


async def test_a_key_never_makes_keys_nor_changes_the_account(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    made = await _create(keys, "nightly")
    by_key = access_pb2_grpc.ApiKeyServiceStub(auth.channel(made.key))
    password = service_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="another green lamp")

    for call in (
        lambda: _create(by_key, "second"),
        lambda: by_key.DeleteApiKey(access_pb2.DeleteApiKeyRequest(api_key_id=made.id)),
        lambda: auth.users(made.key).ChangePassword(password),
    ):
        assert (await _refusal(call())).reason == "NOT_BY_API_KEY"


async def test_another_users_key_is_not_found(auth: Any) -> None:
    made = await _create(await _keys_of(auth, "mia", roles=["viewer"]), "hers")
    others = await _keys_of(auth, "eve", roles=["viewer"])

    error = await _refusal(others.DeleteApiKey(access_pb2.DeleteApiKeyRequest(api_key_id=made.id)))

    assert error.reason == "API_KEY_NOT_FOUND"
    assert not (await others.ListApiKeys(access_pb2.ListApiKeysRequest())).api_keys


async def test_the_last_use_is_told_to_the_minute(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    made = await _create(keys, "nightly")
    (before,) = (await keys.ListApiKeys(access_pb2.ListApiKeysRequest())).api_keys

    await _exchange(auth, made.key)

    (after,) = (await keys.ListApiKeys(access_pb2.ListApiKeysRequest())).api_keys
    assert not before.HasField("last_used_time")
    assert after.last_used_time.seconds % 60 == 0
    assert abs(after.last_used_time.seconds - utc_now().timestamp()) < 900


async def test_keys_come_in_pages_the_newest_first(auth: Any) -> None:
    keys = await _keys_of(auth, "mia", roles=["viewer"])
    for number in range(3):
        await _create(keys, f"key {number}")

    first = await keys.ListApiKeys(access_pb2.ListApiKeysRequest(page_size=2))
    rest = await keys.ListApiKeys(access_pb2.ListApiKeysRequest(page_size=2, page_token=first.next_page_token))

    assert [key.name for key in (*first.api_keys, *rest.api_keys)] == ["key 2", "key 1", "key 0"]


async def _verify(auth: Any, key: str) -> Principal:
    """As another service does, that sees the key for the first time."""
    verifier = TokenVerifier(fetch_jwks(auth.address), exchange=exchange_at(auth.address))
    verify: Callable[[str], Principal] = verifier.verify
    return await asyncio.to_thread(verify, key)


async def _exchange(auth: Any, key: str) -> Any:
    return await access_pb2_grpc.ApiKeyServiceStub(auth.channel()).ExchangeApiKey(
        access_pb2.ExchangeApiKeyRequest(key=key)
    )


async def _keys_of(auth: Any, username: str, *, roles: list[str]) -> Any:
    await auth.create_user(username, roles=roles)
    return await _keys(auth, username)


async def _keys(auth: Any, username: str) -> Any:
    return access_pb2_grpc.ApiKeyServiceStub(auth.channel((await auth.login(username, PASSWORD)).access_token))


async def _create(keys: Any, name: str, permissions: list[str] | None = None) -> access_pb2.ApiKey:
    wanted = access_pb2.ApiKey(name=name, permissions=permissions or [])
    made: access_pb2.ApiKey = await keys.CreateApiKey(access_pb2.CreateApiKeyRequest(api_key=wanted))
    return made


async def _give(auth: Any, user_id: str, roles: list[str]) -> None:
    request = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user_id, roles=roles))
    request.update_mask.paths.append("roles")
    await (await auth.admin()).UpdateUser(request)


async def _refusal(call: Any) -> EspalierError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)
