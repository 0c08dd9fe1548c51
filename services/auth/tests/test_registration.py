"""Registration, invitations and forgotten passwords."""

import asyncio
import re
import time
from datetime import timedelta
from email.message import Message
from typing import Any

import grpc
import grpc.aio
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import select, update

from espalier.auth.v1 import (
    access_pb2,
    access_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    resources_pb2,
    service_pb2,
)
from espalier_auth.models import User
from espalier_auth.registration.models import Invitation, PasswordReset
from espalier_common.db import utc_now
from espalier_common.errors import InvalidArgument
from espalier_common.infra.processes import free_port
from espalier_common.rpc.status import from_rpc_error
from espalier_common.rpc.timestamps import timestamp

PUBLIC_URL = "https://espalier.example.org"
NEW_PASSWORD = "an orange bicycle"


class Inbox(MessageHandler):
    """Keeps the mails that a real SMTP server on loopback took."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Message] = []
        self.port = 0

    def handle_message(self, message: Message) -> None:
        self.mails.append(message)

    async def wait_for(self, count: int) -> list[Message]:
        deadline = time.monotonic() + 60
        while len(self.mails) < count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        return self.mails


@pytest.fixture
def inbox() -> Any:
    handler = Inbox()
    handler.port = free_port()
    server = Controller(handler, hostname="127.0.0.1", port=handler.port, ready_timeout=60)
    server.start()
    yield handler
    server.stop()


def stub(auth: Any, token: str = "") -> Any:
    return registration_pb2_grpc.RegistrationServiceStub(auth.channel(token))


async def admin(auth: Any) -> Any:
    return stub(auth, (await auth.login()).access_token)


async def invite(auth: Any, **fields: Any) -> registration_pb2.Invitation:
    request = registration_pb2.CreateInvitationRequest(invitation=registration_pb2.Invitation(**fields))
    invitation: registration_pb2.Invitation = await (await admin(auth)).CreateInvitation(request)
    return invitation


def token_of(url: str, path: str) -> str:
    found = re.fullmatch(rf"{re.escape(PUBLIC_URL)}/{path}#(?:invitation|token)=([\w-]{{43}})", url)
    assert found, url
    return found[1]


async def register(auth: Any, username: str = "mia", **fields: Any) -> resources_pb2.User:
    request = registration_pb2.RegisterRequest(username=username, **{"password": "a quiet green lamp"} | fields)
    user: resources_pb2.User = await stub(auth).Register(request)
    return user


async def refusal(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value).reason


async def test_registration_is_closed_unless_somebody_opens_it(auth: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await register(auth)

    error = from_rpc_error(refused.value)
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "REGISTRATION_CLOSED")
    assert error.metadata["permission"] == "auth.users.create"


async def rules(auth: Any) -> tuple[str, bool, int]:
    told = await stub(auth).GetRegistrationRules(registration_pb2.GetRegistrationRulesRequest())
    return told.mode, told.sends_mail, told.password_min_length


async def test_who_has_no_account_is_told_how_to_get_one(start_auth: Any) -> None:
    assert await rules(await start_auth()) == ("closed", False, 12)
    opened = await start_auth(registration="open", smtp_host="127.0.0.1", password_min_length=16)
    assert await rules(opened) == ("open", True, 16)


async def test_in_open_registration_everybody_gets_an_account_with_the_configured_roles(start_auth: Any) -> None:
    auth = await start_auth(registration="open")
    user = await register(auth, display_name="Mia", email="Mia@Example.org")

    assert (list(user.roles), user.email, user.password_change_required) == (["tester"], "mia@example.org", False)
    assert (await auth.login("mia", "a quiet green lamp")).access_token
    assert await refusal(register(auth)) == "USERNAME_TAKEN"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"email": "no address"}, "INVALID_USER"),
        ({"email": "a@b.c\r\nBcc: x@y.z"}, "INVALID_USER"),
        ({"username": "green-lamp"}, "INVALID_PASSWORD"),
    ],
)
async def test_a_bad_registration_is_refused(start_auth: Any, fields: dict[str, str], reason: str) -> None:
    auth = await start_auth(registration="open")
    request = registration_pb2.RegisterRequest(**({"username": "mia", "password": "green-lamp-12345"} | fields))

    assert await refusal(stub(auth).Register(request)) == reason


async def test_by_invitation_one_person_registers_with_its_roles_and_address(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    invitation = await invite(auth, email="mia@example.org", roles=["trainer"])
    token = token_of(invitation.url, "register")

    assert await refusal(register(auth)) == "INVITATION_NEEDED"
    assert await refusal(register(auth, email="eve@example.org", invitation_token=token)) == "INVALID_USER"
    user = await register(auth, invitation_token=token)
    assert (list(user.roles), user.email) == (["trainer"], "mia@example.org")
    assert await refusal(register(auth, "eve", invitation_token=token)) == "INVALID_INVITATION"


async def test_all_that_is_wrong_with_a_newcomer_and_with_an_invitation_is_told_at_once(start_auth: Any) -> None:
    auth = await start_auth(registration="open", public_url=PUBLIC_URL)
    long_ago = timestamp(utc_now() - timedelta(days=1))
    for call, fields in (
        (
            register(auth, display_name="M\u202e", email="nowhere", password="password12345678"),
            ["display_name", "email", "password"],
        ),
        (invite(auth, email="nowhere", group_ids=["a", "b"]), ["email", "group_ids[0]", "group_ids[1]"]),
        (invite(auth, expire_time=long_ago, roles=["king"]), ["expire_time", "roles[0]"]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        error = from_rpc_error(refused.value)
        assert isinstance(error, InvalidArgument)
        assert [found.field.removeprefix("invitation.") for found in error.violations] == fields


async def test_of_twenty_people_with_one_invitation_one_gets_in(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL, throttle=False)
    token = token_of((await invite(auth, roles=["viewer"])).url, "register")
    answers = await asyncio.gather(
        *(register(auth, f"user{number}", invitation_token=token) for number in range(20)), return_exceptions=True
    )

    assert sum(isinstance(answer, resources_pb2.User) for answer in answers) == 1
    with auth.database.transaction() as session:
        assert len(session.scalars(select(User)).all()) == 2


async def test_the_token_of_an_invitation_is_not_in_the_database(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    token = token_of((await invite(auth, roles=["viewer"])).url, "register")

    with auth.database.transaction() as session:
        stored = session.scalars(select(Invitation)).one()
    assert token not in str(vars(stored))
    assert len(stored.token_hash) == 32


async def test_an_invitation_expires_and_can_be_taken_back(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    expired, taken = await invite(auth, roles=["viewer"]), await invite(auth, roles=["viewer"])
    listed = await (await admin(auth)).ListInvitations(registration_pb2.ListInvitationsRequest())
    assert [each.id for each in listed.invitations] == [taken.id, expired.id]
    assert not any(each.url for each in listed.invitations)

    with auth.database.transaction() as session:
        session.execute(update(Invitation).where(Invitation.id == expired.id).values(expires_at=utc_now()))
    request = registration_pb2.DeleteInvitationRequest(invitation_id=taken.id)
    await (await admin(auth)).DeleteInvitation(request)

    for each in (expired, taken):
        token = token_of(each.url, "register")
        assert await refusal(register(auth, invitation_token=token)) == "INVALID_INVITATION"
    assert await refusal((await admin(auth)).DeleteInvitation(request)) == "INVITATION_NOT_FOUND"


async def test_an_invitation_is_worth_nothing_once_its_maker_is_disabled(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    second = await auth.create_user("second", roles=["admin"])
    maker = stub(auth, (await auth.login("second", "a quiet green lamp")).access_token)
    invitation = registration_pb2.Invitation(roles=["admin"])
    made = await maker.CreateInvitation(registration_pb2.CreateInvitationRequest(invitation=invitation))
    disable = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=second.id, disabled=True))
    disable.update_mask.paths.append("disabled")
    await (await auth.admin()).UpdateUser(disable)

    token = token_of(made.url, "register")
    assert await refusal(register(auth, invitation_token=token)) == "INVALID_INVITATION"


async def test_an_invitation_to_a_group_gives_no_roles_that_its_maker_may_not_give(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    token = (await auth.login()).access_token
    access = access_pb2_grpc.GroupServiceStub(auth.channel(token))
    inviting = resources_pb2.Role(name="inviter", permissions=["auth.invitations.create"], scope="all")
    await access_pb2_grpc.RoleServiceStub(auth.channel(token)).CreateRole(access_pb2.CreateRoleRequest(role=inviting))
    await auth.create_user("ina", roles=["inviter"])
    group = await access.CreateGroup(access_pb2.CreateGroupRequest(group=access_pb2.Group(name="vision")))
    invitation = registration_pb2.Invitation(group_ids=[group.id])
    maker = stub(auth, (await auth.login("ina", "a quiet green lamp")).access_token)
    made = await maker.CreateInvitation(registration_pb2.CreateInvitationRequest(invitation=invitation))
    change = access_pb2.UpdateGroupRequest(group=access_pb2.Group(id=group.id, roles=["admin"]))
    change.update_mask.paths.append("roles")
    await access.UpdateGroup(change)

    late = token_of(made.url, "register")
    assert await refusal(register(auth, invitation_token=late)) == "INVALID_INVITATION"


async def test_who_is_invited_to_groups_is_in_them_and_one_that_is_gone_is_left_out(start_auth: Any) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)
    access = access_pb2_grpc.GroupServiceStub(auth.channel((await auth.login()).access_token))
    vision, speech, gone = [
        await access.CreateGroup(access_pb2.CreateGroupRequest(group=access_pb2.Group(name=name, roles=roles)))
        for name, roles in (("vision", ["tester"]), ("speech", []), ("gone", []))
    ]
    made = await invite(auth, roles=["viewer"], group_ids=[vision.id, speech.id, gone.id])
    await access.DeleteGroup(access_pb2.DeleteGroupRequest(group_id=gone.id))

    user = await register(auth, invitation_token=token_of(made.url, "register"))

    assert (list(user.roles), sorted(user.group_ids)) == (["viewer"], sorted([vision.id, speech.id]))
    token = (await auth.login("mia", "a quiet green lamp")).access_token
    assert (await asyncio.to_thread(auth.verifier().verify, token)).may("chat.sessions.create")


async def test_a_dozen_people_behind_one_address_register_without_a_wait(start_auth: Any) -> None:
    auth = await start_auth(registration="open")

    for number in range(12):
        assert (await register(auth, f"user{number}")).id


@pytest.mark.parametrize("fields", [{"roles": ["wizard"]}, {"group_ids": ["x"]}, {"email": "x"}])
async def test_a_bad_invitation_is_refused(start_auth: Any, fields: dict[str, Any]) -> None:
    auth = await start_auth(registration="invitation", public_url=PUBLIC_URL)

    assert await refusal(invite(auth, **fields)) == "INVALID_USER"


async def test_a_link_needs_a_configured_address(auth: Any) -> None:
    assert await refusal(invite(auth, roles=["viewer"])) == "PUBLIC_URL_MISSING"


async def test_with_an_administrators_link_a_user_chooses_a_new_password_once(start_auth: Any) -> None:
    auth = await start_auth(public_url=PUBLIC_URL)
    user = await auth.create_user("mia", roles=["viewer"])
    session = await auth.login("mia", "a quiet green lamp")
    made = await _make_link(auth, user.id)
    reset = registration_pb2.ResetPasswordRequest(token=token_of(made.url, "reset-password"), new_password=NEW_PASSWORD)
    weak = registration_pb2.ResetPasswordRequest(token=reset.token, new_password="password12345678")
    assert await refusal(stub(auth).ResetPassword(weak)) == "INVALID_PASSWORD"
    await stub(auth).ResetPassword(reset)

    assert (await auth.login("mia", NEW_PASSWORD)).access_token
    refresh = service_pb2.RefreshRequest(refresh_token=session.refresh_token)
    assert await refusal(auth.sign_in().Refresh(refresh)) == "INVALID_REFRESH_TOKEN"
    assert await refusal(stub(auth).ResetPassword(reset)) == "INVALID_RESET_LINK"


async def test_of_twenty_who_use_one_link_at_once_one_chooses_the_password(start_auth: Any) -> None:
    auth = await start_auth(public_url=PUBLIC_URL, throttle=False)
    user = await auth.create_user("mia", roles=["viewer"])
    token = token_of((await _make_link(auth, user.id)).url, "reset-password")
    passwords = [f"{NEW_PASSWORD} {number}" for number in range(20)]
    uses = [registration_pb2.ResetPasswordRequest(token=token, new_password=password) for password in passwords]
    answers = await asyncio.gather(*map(stub(auth).ResetPassword, uses), return_exceptions=True)

    [chosen] = [password for password, answer in zip(passwords, answers, strict=True) if isinstance(answer, Empty)]
    assert (await auth.login("mia", chosen)).access_token


async def test_a_link_expires_and_a_new_one_replaces_it(start_auth: Any) -> None:
    auth = await start_auth(public_url=PUBLIC_URL)
    user = await auth.create_user("mia", roles=["viewer"])
    replaced, expired = await _make_link(auth, user.id), await _make_link(auth, user.id)
    with auth.database.transaction() as session:
        session.execute(update(PasswordReset).values(expires_at=utc_now() - timedelta(seconds=1)))

    for made in (replaced, expired):
        token = token_of(made.url, "reset-password")
        request = registration_pb2.ResetPasswordRequest(token=token, new_password=NEW_PASSWORD)
        assert await refusal(stub(auth).ResetPassword(request)) == "INVALID_RESET_LINK"


async def test_a_link_is_over_once_the_owner_changed_his_password_himself(start_auth: Any) -> None:
    auth = await start_auth(public_url=PUBLIC_URL)
    user = await auth.create_user("mia", roles=["viewer"])
    made = await _make_link(auth, user.id)
    token = (await auth.login("mia", "a quiet green lamp")).access_token
    change = service_pb2.ChangePasswordRequest(current_password="a quiet green lamp", new_password="a loud red lamp")
    await auth.users(token).ChangePassword(change)

    stale = registration_pb2.ResetPasswordRequest(token=token_of(made.url, "reset-password"), new_password=NEW_PASSWORD)
    assert await refusal(stub(auth).ResetPassword(stale)) == "INVALID_RESET_LINK"
    assert (await auth.login("mia", "a loud red lamp")).access_token


async def test_a_forgotten_password_is_answered_alike_and_mailed_to_who_has_an_address(
    start_auth: Any, inbox: Any
) -> None:
    auth = await start_auth(public_url=PUBLIC_URL, smtp_host="127.0.0.1", smtp_port=inbox.port, smtp_security="none")
    await auth.create_user("mia", roles=["viewer"])
    token = (await auth.login("mia", "a quiet green lamp")).access_token
    change = service_pb2.UpdateMeRequest(user=resources_pb2.User(email="Mia@example.org"))
    change.update_mask.paths.append("email")
    assert (await auth.users(token).UpdateMe(change)).email == "mia@example.org"

    for login in ("nobody", "admin", "mia@example.org", "mia"):
        await stub(auth).ForgotPassword(registration_pb2.ForgotPasswordRequest(login=login))
    mails = await inbox.wait_for(2)

    assert [mail["To"] for mail in mails] == ["mia@example.org"] * 2
    link = re.search(r"https://\S+", mails[0].get_payload(decode=True).decode())
    assert link
    reset = registration_pb2.ResetPasswordRequest(token=token_of(link[0], "reset-password"), new_password=NEW_PASSWORD)
    await stub(auth).ResetPassword(reset)
    assert (await auth.login("mia", NEW_PASSWORD)).access_token


async def test_without_mail_a_forgotten_password_is_answered_with_what_to_do(auth: Any) -> None:
    for login in ("admin", "nobody"):
        request = registration_pb2.ForgotPasswordRequest(login=login)
        assert await refusal(stub(auth).ForgotPassword(request)) == "MAIL_NOT_CONFIGURED"


async def test_guessing_links_is_slowed_down_by_address(auth: Any) -> None:
    request = registration_pb2.ResetPasswordRequest(token="made up", new_password=NEW_PASSWORD)
    reasons = [await refusal(stub(auth).ResetPassword(request)) for _ in range(32)]

    assert reasons == ["INVALID_RESET_LINK"] * 30 + ["TOO_MANY_REQUESTS"] * 2


@pytest.mark.parametrize(
    ("user", "paths"),
    [({"email": "x"}, ["email"]), ({"username": "x"}, ["username"]), ({"roles": ["admin"]}, ["roles"]), ({}, [])],
)
async def test_nobody_changes_more_of_himself_than_name_and_address(
    auth: Any, user: dict[str, Any], paths: list[str]
) -> None:
    request = service_pb2.UpdateMeRequest(user=resources_pb2.User(**user))
    request.user.SetInParent()
    request.update_mask.paths.extend(paths)
    request.update_mask.SetInParent()
    token = (await auth.login()).access_token

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.users(token).UpdateMe(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def _make_link(auth: Any, user_id: str) -> registration_pb2.PasswordReset:
    request = registration_pb2.CreatePasswordResetRequest(user_id=user_id)
    made: registration_pb2.PasswordReset = await (await admin(auth)).CreatePasswordReset(request)
    return made
