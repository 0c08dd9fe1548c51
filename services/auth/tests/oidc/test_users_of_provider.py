"""Users whom a real provider vouches for, and the roles that their groups there give."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import update

from espalier.auth.v1 import resources_pb2, service_pb2
from espalier_auth.models import User
from espalier_common.rpc.status import from_rpc_error

from .provider_process import ADA, StartOidc

pytestmark = pytest.mark.slow


async def test_a_user_is_made_at_his_first_sign_in_and_found_again(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-1", **{**ADA, "groups": ["ml", "odd", "unmapped"]})

    first = await relying.sign_in("sub-1")
    relying.provider.put("sub-1", **{**ADA, "preferred_username": "somebody-else", "email": "new@example.org"})
    again = await relying.sign_in("sub-1")

    assert (first.username, first.display_name, first.email) == ("ada", "Ada L.", "ada@example.org")
    assert first.email_verified
    assert first.identity_provider == "corporate"
    assert list(first.roles) == ["tester", "trainer"]
    assert not first.password_change_required
    assert (again.id, again.username) == (first.id, "ada")


async def test_roles_follow_the_groups_and_leave_alone_what_was_given_by_hand(start_oidc: StartOidc) -> None:
    relying = await start_oidc(default_roles=[])
    relying.provider.put("sub-2", **{**ADA, "groups": ["ml"]})
    user = await relying.sign_in("sub-2")
    assert list(user.roles) == ["trainer"]

    await _give_roles(relying.auth, user.id, ["trainer", "viewer"])
    relying.provider.put("sub-2", **{**ADA, "groups": []})
    assert list((await relying.sign_in("sub-2")).roles) == ["viewer"]

    # Given by hand first and by the groups later: it stays when the groups take theirs back.
    await _give_roles(relying.auth, user.id, ["trainer", "viewer"])
    relying.provider.put("sub-2", **{**ADA, "groups": ["ml"]})
    assert list((await relying.sign_in("sub-2")).roles) == ["trainer", "viewer"]
    relying.provider.put("sub-2", **{**ADA, "groups": "nonsense"})
    assert list((await relying.sign_in("sub-2")).roles) == ["trainer", "viewer"]


async def test_what_the_groups_took_away_is_gone_in_sessions_of_before_too(start_oidc: StartOidc) -> None:
    relying = await start_oidc(default_roles=[])
    relying.provider.put("sub-4", **{**ADA, "groups": ["boss"]})
    before = await relying.finish(await relying.answer("sub-4"))
    relying.provider.put("sub-4", **{**ADA, "groups": []})
    after = await relying.finish(await relying.answer("sub-4"))

    old, refresh = relying.auth.users(before.access_token), service_pb2.RefreshRequest()
    refresh.refresh_token = before.refresh_token

    async def ask_until_refused() -> None:
        while await old.GetMe(service_pb2.GetMeRequest()):
            await asyncio.sleep(0.1)

    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask_until_refused()
    assert from_rpc_error(refused.value).reason == "TOKEN_REVOKED"
    for pair in (after, await relying.auth.sign_in().Refresh(refresh)):
        me = await relying.auth.users(pair.access_token).GetMe(service_pb2.GetMeRequest())
        assert list(me.user.roles) == []


async def test_the_last_administrator_keeps_his_role_whatever_his_groups_say(start_oidc: StartOidc) -> None:
    relying = await start_oidc(default_roles=[])
    relying.provider.put("sub-3", **{**ADA, "groups": ["boss"]})
    await relying.sign_in("sub-3")
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.username == "admin").values(disabled=True))
    relying.provider.put("sub-3", **{**ADA, "groups": []})

    assert list((await relying.sign_in("sub-3")).roles) == ["admin"]
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.username == "admin").values(disabled=False))
    assert list((await relying.sign_in("sub-3")).roles) == []


async def _give_roles(auth: Any, user_id: str, roles: list[str]) -> None:
    request = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user_id, roles=roles))
    request.update_mask.paths.append("roles")
    await (await auth.admin()).UpdateUser(request)
