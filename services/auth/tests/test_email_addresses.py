"""Whose an e-mail address is: his for whom somebody vouches; what people write of themselves takes it from nobody."""

import asyncio
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from espalier.auth.v1 import registration_pb2, registration_pb2_grpc, resources_pb2, service_pb2
from espalier_auth.registration.repository import find_users_to_mail
from espalier_common.db import new_id
from espalier_common.migrations import alembic_config
from espalier_common.rpc.status import from_rpc_error

PASSWORD = "a quiet green lamp"
PUBLIC_URL = "https://espalier.example.org"


async def test_an_address_that_an_administrator_gave_is_one_users_alone_in_any_case(auth: Any) -> None:
    admin = await auth.admin()
    ada = await create(admin, "ada", "Ada@Example.org")
    bob = await create(admin, "bob", "")

    assert (ada.email, ada.email_verified, bob.email_verified) == ("ada@example.org", True, False)
    for taken in (create(admin, "eve", "ADA@example.org"), change(admin, bob.id, email="ada@EXAMPLE.org")):
        error = await refusal(taken)
        assert (error.code, error.reason) == ("ALREADY_EXISTS", "EMAIL_TAKEN")
        assert "ada@example.org" in error.message
    assert (await refusal(change(admin, bob.id, email="no address"))).code == "INVALID_ARGUMENT"

    # Once it is taken from the one, it is free for the other.
    assert not (await change(admin, ada.id, email="")).email_verified
    given = await change(admin, bob.id, email="ada@example.org")
    assert (given.email, given.email_verified) == ("ada@example.org", True)


async def test_of_many_who_give_one_address_at_once_one_succeeds(auth: Any) -> None:
    admin = await auth.admin()
    answers = await asyncio.gather(
        *(create(admin, f"user{number}", "one@example.org") for number in range(6)), return_exceptions=True
    )

    assert sum(isinstance(answer, resources_pb2.User) for answer in answers) == 1


async def test_what_a_user_writes_of_himself_is_not_verified_and_says_nothing_of_others(auth: Any) -> None:
    admin = await auth.admin()
    await create(admin, "ada", "ada@example.org")
    bob = await create(admin, "bob", "bob@example.org")
    mine = auth.users((await auth.login("bob", PASSWORD)).access_token)

    # The same answer for an address that is somebody's as for one that is nobody's.
    for address in ("ada@example.org", "nobody@example.org"):
        changed = await change_own(mine, address)
        assert (changed.email, changed.email_verified) == (address, False)
    # His own from before is anybody's again; and an administrator who looks at it makes it his once more.
    assert not (await change_own(mine, "bob@example.org")).email_verified
    assert (await change(admin, bob.id, email="bob@example.org")).email_verified


async def test_an_administrators_own_address_takes_a_recent_sign_in_on_every_path(auth: Any) -> None:
    token = (await auth.login()).access_token
    me = (await auth.users(token).GetMe(service_pb2.GetMeRequest())).user
    with auth.database.transaction() as session:
        session.execute(text("UPDATE login_sessions SET created_at = created_at - interval '1 hour'"))

    error = await refusal(change(auth.users(token), me.id, email="thief@example.org"))

    assert (error.code, error.reason) == ("PERMISSION_DENIED", "SIGN_IN_AGAIN")


async def test_whoever_registers_learns_of_no_address_whose_it_is(start_auth: Any) -> None:
    auth = await start_auth(registration="open")
    await create(await auth.admin(), "ada", "ada@example.org")

    eve = await register(auth, "eve", email="ada@example.org")
    zoe = await register(auth, "zoe", email="zoe@example.org")

    assert (eve.email, eve.email_verified) == ("ada@example.org", False)
    assert (zoe.email, zoe.email_verified) == ("zoe@example.org", False)


async def test_an_invitation_vouches_for_the_address_that_it_names(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    admin = await auth.admin()
    mia, late = await invite(auth, "Mia@example.org"), await invite(auth, "late@example.org")
    await create(admin, "owner", "late@example.org")

    user = await register(auth, "mia", invitation_token=mia)
    assert (user.email, user.email_verified) == ("mia@example.org", True)
    for taken in (invite(auth, "MIA@example.org"), register(auth, "late", invitation_token=late)):
        assert (await refusal(taken)).reason == "EMAIL_TAKEN"


async def test_however_many_claim_an_address_its_owner_gets_his_mail(start_auth: Any) -> None:
    auth = await start_auth(registration="open")
    for number in range(6):
        await register(auth, f"claimant{number}", email="ada@example.org")
    await create(await auth.admin(), "ada", "ada@example.org")

    with auth.database.transaction() as session:
        found = [user.username for user in find_users_to_mail(session, "ada@example.org")]
    assert (found[0], len(found)) == ("ada", 5)


async def test_links_that_were_mailed_to_another_address_are_over(start_auth: Any) -> None:
    auth = await start_auth(public_url=PUBLIC_URL)
    admin = await auth.admin()
    bob = await create(admin, "bob", "bob@example.org")
    registration = registration_pb2_grpc.RegistrationServiceStub(auth.channel((await auth.login()).access_token))
    own = auth.users((await auth.login("bob", PASSWORD)).access_token)

    for change_of_address in (change_own(own, "bob@home.example"), change(admin, bob.id, email="bob@example.org")):
        made = await registration.CreatePasswordReset(registration_pb2.CreatePasswordResetRequest(user_id=bob.id))
        await change_of_address
        request = registration_pb2.ResetPasswordRequest(
            token=made.url.partition("token=")[2], new_password="an orange bicycle"
        )
        assert (await refusal(registration.ResetPassword(request))).reason == "INVALID_RESET_LINK"


def test_of_addresses_from_before_those_are_verified_that_a_provider_told_and_the_eldest_keeps_a_double_one(
    database_url: str,
) -> None:
    from alembic import command

    engine = create_engine(database_url, poolclass=NullPool)
    config = alembic_config("espalier_auth")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        connection.commit()
    with engine.begin() as connection:
        for username, email, told in (
            ("elder", "ada@example.org", "ada@example.org"),
            ("younger", "ada@example.org", "ada@example.org"),
            ("claims", "ada@example.org", ""),
            ("moved", "moved@example.org", "before@example.org"),
            ("none", "", ""),
        ):
            _add_user_of_before(connection, username, email=email, told=told)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")
        connection.commit()
        # A replica of the release before goes on writing addresses: none of them counts as verified by that.
        connection.execute(text("UPDATE users SET email = 'ada@example.org' WHERE username = 'moved'"))
        found = connection.execute(text("SELECT username FROM users WHERE verified_email = email")).scalars().all()

    assert found == ["elder"]


def _add_user_of_before(connection: Any, username: str, *, email: str, told: str) -> None:
    user = {"id": new_id(), "username": username, "email": email}
    connection.execute(
        text(
            "INSERT INTO users (id, username, display_name, password_hash, roles, disabled, password_change_required,"
            " created_at, email) VALUES (:id, :username, '', '', '[]', false, false, clock_timestamp(), :email)"
        ),
        user,
    )
    if told:
        connection.execute(
            text(
                "INSERT INTO external_identities (issuer, subject, user_id, provider, email, granted_roles,"
                " created_at, last_login_at) VALUES ('i', :username, :id, 'p', :told, '[]', now(), now())"
            ),
            user | {"told": told},
        )


async def create(admin: Any, username: str, email: str) -> resources_pb2.User:
    user = resources_pb2.User(username=username, email=email, roles=["viewer"])
    created: resources_pb2.User = await admin.CreateUser(service_pb2.CreateUserRequest(user=user, password=PASSWORD))
    return created


async def change(admin: Any, user_id: str, *, email: str) -> resources_pb2.User:
    request = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user_id, email=email))
    request.update_mask.paths.append("email")
    changed: resources_pb2.User = await admin.UpdateUser(request)
    return changed


async def change_own(users: Any, email: str) -> resources_pb2.User:
    request = service_pb2.UpdateMeRequest(user=resources_pb2.User(email=email))
    request.update_mask.paths.append("email")
    changed: resources_pb2.User = await users.UpdateMe(request)
    return changed


async def register(auth: Any, username: str, **fields: Any) -> resources_pb2.User:
    request = registration_pb2.RegisterRequest(username=username, password=PASSWORD, **fields)
    stub = registration_pb2_grpc.RegistrationServiceStub(auth.channel())
    user: resources_pb2.User = await stub.Register(request)
    return user


async def invite(auth: Any, email: str) -> str:
    """The token of a new invitation."""
    stub = registration_pb2_grpc.RegistrationServiceStub(auth.channel((await auth.login()).access_token))
    invitation = registration_pb2.Invitation(email=email, roles=["viewer"])
    made = await stub.CreateInvitation(registration_pb2.CreateInvitationRequest(invitation=invitation))
    token: str = made.url.partition("invitation=")[2]
    return token


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)
