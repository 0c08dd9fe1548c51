"""Who a user is at a real provider, beside the account that he has or has not here."""

from typing import Any

import grpc.aio
import pytest
from sqlalchemy import select, update

from espalier.auth.v1 import oidc_pb2, resources_pb2, service_pb2
from espalier_auth.models import User
from espalier_auth.oidc.models import ExternalIdentity
from espalier_auth.oidc.service import SingleSignOn
from espalier_common.rpc.status import from_rpc_error

from .provider_process import ADA, StartOidc

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "claims", [{"email": "ADA@example.org", "preferred_username": "x-1"}, {"preferred_username": "Ada"}]
)
async def test_an_account_that_exists_is_never_taken_over(start_oidc: StartOidc, claims: dict[str, Any]) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("ada", roles=["trainer"])
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.id == owner.id).values(email="ada@example.org"))
    relying.provider.put("sub-4", **{**ADA, "email": "other@example.org", **claims})

    error = await relying.refusal(await relying.answer("sub-4"))

    assert (error.code, error.reason) == ("ALREADY_EXISTS", "ACCOUNT_EXISTS")
    assert "To link the two, sign in with that account's password" in error.message
    with relying.auth.database.transaction() as session:
        assert session.scalars(select(ExternalIdentity)).all() == []


async def test_who_squats_an_address_and_a_name_keeps_their_owner_out_of_nothing(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    squatter = await relying.auth.create_user("ada", roles=["trainer"])
    claimed = service_pb2.UpdateMeRequest(user=resources_pb2.User(email="ada@example.org"))
    claimed.update_mask.paths.append("email")
    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    await relying.auth.users(token).UpdateMe(claimed)
    relying.provider.put("sub-17", **ADA)
    assert "ask for an account of your own" in (await relying.refusal(await relying.answer("sub-17"))).message

    owner = await relying.sign_in("sub-17", separate=True)

    assert (owner.username, owner.email, owner.email_verified) == ("ada-2", "ada@example.org", True)
    assert owner.id != squatter.id
    assert list(owner.roles) == ["tester"]
    # From then on it is his account, asked for or not; and the other one stays what it was.
    assert (await relying.sign_in("sub-17")).id == (await relying.sign_in("sub-17", separate=True)).id == owner.id
    kept = (await relying.auth.users(token).GetMe(service_pb2.GetMeRequest())).user
    assert (kept.id, kept.email, kept.email_verified) == (squatter.id, "ada@example.org", False)


async def test_an_address_that_is_known_to_be_anothers_stays_his(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    new = resources_pb2.User(username="owner", email="ada@example.org")
    request = service_pb2.CreateUserRequest(user=new, password="a quiet green lamp")
    await (await relying.auth.admin()).CreateUser(request)
    relying.provider.put("sub-18", **ADA)
    assert (await relying.refusal(await relying.answer("sub-18"))).reason == "ACCOUNT_EXISTS"

    separate = await relying.sign_in("sub-18", separate=True)

    assert (separate.username, separate.email, separate.email_verified) == ("ada", "", False)


async def test_a_provider_verifies_the_address_that_the_linked_account_has(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    await relying.auth.create_user("ada", roles=["viewer"])
    users = relying.auth.users((await relying.auth.login("ada", "a quiet green lamp")).access_token)
    claimed = service_pb2.UpdateMeRequest(user=resources_pb2.User(email="ada@example.org"))
    claimed.update_mask.paths.append("email")
    assert not (await users.UpdateMe(claimed)).email_verified
    relying.provider.put("sub-19", **ADA)
    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token

    await relying.stub(token).LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-19")))

    assert (await users.GetMe(service_pb2.GetMeRequest())).user.email_verified


async def test_who_is_signed_in_links_his_account_and_signs_in_with_either(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("ada", roles=["viewer"])
    relying.provider.put("sub-5", **ADA)
    pair = await relying.auth.login("ada", "a quiet green lamp")
    stub = relying.stub(pair.access_token)

    linked = await stub.LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-5")))

    assert (linked.provider, linked.email) == ("corporate", "ada@example.org")
    user = await relying.sign_in("sub-5")
    assert (user.id, list(user.roles)) == (owner.id, ["tester", "viewer"])
    # The provider's groups changed her roles, which took back her token of before.
    ada = relying.stub((await relying.auth.login("ada", "a quiet green lamp")).access_token)

    await relying.auth.create_user("bob", roles=["viewer"])
    bob = relying.stub((await relying.auth.login("bob", "a quiet green lamp")).access_token)
    for account, token_stub, reason in (("sub-5", bob, "IDENTITY_TAKEN"), ("sub-6", ada, "IDENTITY_LINKED")):
        relying.provider.put(account, **ADA)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await token_stub.LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer(account)))
        assert from_rpc_error(refused.value).reason == reason
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await relying.stub().LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-5")))
    assert from_rpc_error(refused.value).code == "UNAUTHENTICATED"


async def test_who_unlinks_loses_what_came_with_it_and_never_his_only_way_in(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("ada", roles=["viewer"])
    relying.provider.put("sub-13", **ADA)
    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    await relying.stub(token).LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-13")))
    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    unlink = oidc_pb2.UnlinkIdentityRequest(provider="corporate")

    listed = await relying.stub(token).ListIdentities(oidc_pb2.ListIdentitiesRequest())
    assert [(each.provider, each.email) for each in listed.identities] == [("corporate", "ada@example.org")]
    await relying.stub(token).UnlinkIdentity(unlink)

    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    me = await relying.auth.users(token).GetMe(service_pb2.GetMeRequest())
    assert (me.user.id, list(me.user.roles)) == (owner.id, ["viewer"])
    assert not (await relying.stub(token).ListIdentities(oidc_pb2.ListIdentitiesRequest())).identities
    assert (await relying.refusal(await relying.answer("sub-13"))).reason == "ACCOUNT_EXISTS"

    relying.provider.put("sub-14", **{**ADA, "email": "bob@example.org", "preferred_username": "bob"})
    bob = (await relying.finish(await relying.answer("sub-14"))).access_token
    for caller, reason in ((token, "IDENTITY_NOT_FOUND"), (bob, "ONLY_WAY_IN")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await relying.stub(caller).UnlinkIdentity(unlink)
        assert from_rpc_error(refused.value).reason == reason


async def test_a_disabled_user_is_told_so(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-7", **ADA)
    user = await relying.sign_in("sub-7")
    request = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user.id, disabled=True))
    request.update_mask.paths.append("disabled")
    await (await relying.auth.admin()).UpdateUser(request)

    assert (await relying.refusal(await relying.answer("sub-7"))).reason == "USER_DISABLED"


async def test_nobody_signs_in_with_a_password_that_a_user_of_a_provider_does_not_have(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-8", **ADA)
    await relying.sign_in("sub-8")

    for password in ("x", " ", "!", SingleSignOn.__name__):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await relying.auth.login("ada", password)
        assert from_rpc_error(refused.value).reason == "INVALID_CREDENTIALS"


@pytest.mark.parametrize("verified", [False, None, "true", 1], ids=repr)
async def test_an_address_that_the_provider_has_not_checked_is_nobodys(start_oidc: StartOidc, verified: Any) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("owner", roles=["trainer"])
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.id == owner.id).values(email="ada@example.org"))
    relying.provider.put("sub-15", **{**ADA, "email_verified": verified})

    user = await relying.sign_in("sub-15")

    assert user.id != owner.id
    assert user.email == ""
    with relying.auth.database.transaction() as session:
        assert session.scalars(select(ExternalIdentity.email)).all() == [""]


async def test_who_has_no_password_here_is_told_so_when_he_changes_it(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-16", **ADA)
    token = (await relying.finish(await relying.answer("sub-16"))).access_token
    users = relying.auth.users(token)

    assert (await users.GetMe(service_pb2.GetMeRequest())).user.identity_provider == "corporate"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await users.ChangePassword(
            service_pb2.ChangePasswordRequest(current_password="x", new_password="a quiet blue lamp")
        )
    error = from_rpc_error(refused.value)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PASSWORD_ELSEWHERE")
    assert "You sign in with corporate" in error.message
