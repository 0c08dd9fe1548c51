"""Whom and whose doing a role reaches: with scope own himself, with group who shares a group, with all everybody."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import text, update

from espalier.auth.v1 import (
    access_pb2,
    access_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    resources_pb2,
    service_pb2,
    sessions_pb2,
    sessions_pb2_grpc,
)
from espalier_auth.access.repository import lock_rights
from espalier_auth.models import User
from espalier_auth.registration.repository import delete_resets_of
from espalier_auth.repository import lock_user
from espalier_common.rpc.status import from_rpc_error

PERMISSIONS = [
    "auth.audit.list",
    "auth.groups.create",
    "auth.groups.get",
    "auth.groups.list",
    "auth.groups.update",
    "auth.invitations.create",
    "auth.invitations.delete",
    "auth.invitations.list",
    "auth.users.get",
    "auth.users.list",
    "auth.users.update",
]
PASSWORD = "a quiet green lamp"


class Town:
    """Lea looks after others as far as her role reaches; Mia shares a group with her, Otto does not."""

    def __init__(self, auth: Any, scope: str) -> None:
        self.auth = auth
        self.scope = scope
        self.ids: dict[str, str] = {}
        self.token = ""

    async def build(self) -> "Town":
        channel = self.auth.channel((await self.auth.login()).access_token)
        role = resources_pb2.Role(name="lead", permissions=PERMISSIONS, scope=self.scope)
        await access_pb2_grpc.RoleServiceStub(channel).CreateRole(access_pb2.CreateRoleRequest(role=role))
        for name, roles in (("lea", ["lead"]), ("mia", []), ("otto", [])):
            self.ids[name] = (await self.auth.create_user(name, roles=roles)).id
        group = access_pb2.Group(name="town", member_ids=[self.ids["lea"], self.ids["mia"]])
        await access_pb2_grpc.GroupServiceStub(channel).CreateGroup(access_pb2.CreateGroupRequest(group=group))
        self.token = (await self.auth.login("lea", PASSWORD)).access_token
        return self

    def calls(self, user_id: str) -> list[Awaitable[Any]]:
        """All that can be done to one user."""
        users, channel = self.auth.users(self.token), self.auth.channel(self.token)
        change = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user_id, display_name="Somebody"))
        change.update_mask.paths.append("display_name")
        return [
            users.GetUser(service_pb2.GetUserRequest(user_id=user_id)),
            access_pb2_grpc.RoleServiceStub(channel).ExplainPermissions(
                access_pb2.ExplainPermissionsRequest(user_id=user_id)
            ),
            users.UpdateUser(change),
            registration_pb2_grpc.RegistrationServiceStub(channel).CreatePasswordReset(
                registration_pb2.CreatePasswordResetRequest(user_id=user_id)
            ),
            sessions_pb2_grpc.SessionServiceStub(channel).EndUserSessions(
                sessions_pb2.EndUserSessionsRequest(user_id=user_id)
            ),
        ]


@pytest.mark.parametrize(
    ("scope", "seen"), [("own", {"lea"}), ("group", {"lea", "mia"}), ("all", {"admin", "lea", "mia", "otto"})]
)
async def test_a_role_reaches_users_as_far_as_its_scope(start_auth: Any, scope: str, seen: set[str]) -> None:
    town = await Town(await start_auth(public_url="https://espalier.example.org"), scope).build()
    listed = await town.auth.users(town.token).ListUsers(service_pb2.ListUsersRequest())
    assert {user.username for user in listed.users} == seen

    for name in ("mia", "otto"):
        for call in town.calls(town.ids[name]):
            if name in seen:
                await call
                continue
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert from_rpc_error(refused.value).reason == "USER_NOT_FOUND"


@pytest.mark.parametrize(("scope", "seen"), [("own", {"lea"}), ("group", {"lea", "mia"})])
async def test_a_role_reads_whose_doing_it_reaches(start_auth: Any, nats_url: str, scope: str, seen: set[str]) -> None:
    town = await Town(await start_auth(nats_url=nats_url), scope).build()
    for name in ("mia", "otto"):
        await town.auth.login(name, PASSWORD)
    stub = audit_pb2_grpc.AuditServiceStub(town.auth.channel(town.token))
    deadline = asyncio.get_running_loop().time() + 120
    while True:
        found = await stub.ListAuditEvents(audit_pb2.ListAuditEventsRequest())
        if {event.actor_id for event in found.events} == {town.ids[name] for name in seen}:
            break
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.1)
    other = audit_pb2.ListAuditEventsRequest(actor=town.ids["otto"])
    assert not (await stub.ListAuditEvents(other)).events


@pytest.mark.parametrize(("scope", "seen"), [("own", {"town"}), ("group", {"town"}), ("all", {"hill", "town"})])
async def test_a_role_reaches_groups_as_far_as_its_scope(start_auth: Any, scope: str, seen: set[str]) -> None:
    town = await Town(await start_auth(), scope).build()
    all_groups = access_pb2_grpc.GroupServiceStub(town.auth.channel((await town.auth.login()).access_token))
    group = access_pb2.Group(name="hill", member_ids=[town.ids["otto"]])
    hill = await all_groups.CreateGroup(access_pb2.CreateGroupRequest(group=group))

    groups = access_pb2_grpc.GroupServiceStub(town.auth.channel(town.token))
    listed = await groups.ListGroups(access_pb2.ListGroupsRequest())
    assert {group.name for group in listed.groups} == seen
    change = access_pb2.UpdateGroupRequest(group=access_pb2.Group(id=hill.id, description="Another"))
    change.update_mask.paths.append("description")
    for call in (groups.GetGroup(access_pb2.GetGroupRequest(group_id=hill.id)), groups.UpdateGroup(change)):
        if "hill" in seen:
            await call
            continue
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert from_rpc_error(refused.value).reason == "GROUP_NOT_FOUND"


@pytest.mark.parametrize(("scope", "seen"), [("own", 1), ("group", 1), ("all", 2)])
async def test_a_role_reaches_invitations_as_far_as_its_scope(start_auth: Any, scope: str, seen: int) -> None:
    town = await Town(await start_auth(public_url="https://espalier.example.org"), scope).build()
    of_admin = await invite(town.auth, (await town.auth.login()).access_token, email="otto@example.org")
    hill = await make_group(town.auth, (await town.auth.login()).access_token, "hill", town.ids["otto"])
    await invite(town.auth, town.token, email="ida@example.org")

    stub = registration_pb2_grpc.RegistrationServiceStub(town.auth.channel(town.token))
    listed = await stub.ListInvitations(registration_pb2.ListInvitationsRequest())
    assert len(listed.invitations) == seen
    calls = {
        "INVALID_USER": invite(town.auth, town.token, group_ids=[hill.id]),
        "INVITATION_NOT_FOUND": stub.DeleteInvitation(
            registration_pb2.DeleteInvitationRequest(invitation_id=of_admin.id)
        ),
    }
    for reason, call in calls.items():
        if scope == "all":
            await call
            continue
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert from_rpc_error(refused.value).reason == reason


async def test_nobody_comes_to_reach_others_by_a_group_that_he_makes_or_joins(start_auth: Any) -> None:
    town = await Town(await start_auth(public_url="https://espalier.example.org"), "all").build()
    admin = (await town.auth.login()).access_token
    lea, mia, otto = (town.ids[name] for name in ("lea", "mia", "otto"))
    # With this role she reads the runs of whom she shares a group with.
    reader = resources_pb2.Role(name="reader", permissions=["training.runs.get"], scope="group")
    roles = access_pb2_grpc.RoleServiceStub(town.auth.channel(admin))
    await roles.CreateRole(access_pb2.CreateRoleRequest(role=reader))
    await give_roles(town.auth, lea, ["lead", "reader"])
    hill = await make_group(town.auth, admin, "hill", otto)
    groups = access_pb2_grpc.GroupServiceStub(town.auth.channel(admin))
    [home] = [each for each in (await groups.ListGroups(access_pb2.ListGroupsRequest())).groups if each.name == "town"]

    token = (await town.auth.login("lea", PASSWORD)).access_token
    for call in (
        make_group(town.auth, token, "both", lea, otto),
        set_members(town.auth, token, hill.id, lea, otto),
        set_members(town.auth, token, home.id, lea, mia, otto),
        invite(town.auth, token, roles=["reader"], group_ids=[hill.id]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        answer = from_rpc_error(refused.value)
        assert (answer.reason, answer.metadata["permission"]) == ("ABOVE_OWN_RIGHTS", "training.runs.get")

    # Where nobody gains more than she has herself, she goes on.
    await make_group(town.auth, token, "others", mia, otto)
    await invite(town.auth, token, roles=["reader"], group_ids=[home.id])
    await set_members(town.auth, token, home.id, lea)
    await set_members(town.auth, admin, hill.id, lea, otto)


async def test_nobody_lets_others_reach_whom_he_does_not_reach(start_auth: Any) -> None:
    town = await Town(await start_auth(), "all").build()
    admin = (await town.auth.login()).access_token
    lea, mia, otto = (town.ids[name] for name in ("lea", "mia", "otto"))
    roles = access_pb2_grpc.RoleServiceStub(town.auth.channel(admin))
    for name, permission, scope in (
        ("editor", "auth.roles.update", "all"),
        ("reader", "training.runs.get", "group"),
        ("owner", "training.runs.get", "own"),
    ):
        role = resources_pb2.Role(name=name, permissions=[permission], scope=scope)
        await roles.CreateRole(access_pb2.CreateRoleRequest(role=role))
    await give_roles(town.auth, lea, ["lead", "editor", "reader"])
    await give_roles(town.auth, mia, ["owner"])
    hill = await make_group(town.auth, admin, "hill", mia, otto)
    token = (await town.auth.login("lea", PASSWORD)).access_token

    def attempts() -> list[Awaitable[Any]]:
        given = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=mia, roles=["owner", "reader"]))
        given.update_mask.paths.append("roles")
        widened = access_pb2.UpdateRoleRequest(role=resources_pb2.Role(name="owner", scope="group"))
        widened.update_mask.paths.append("scope")
        stub = access_pb2_grpc.RoleServiceStub(town.auth.channel(token))
        return [town.auth.users(token).UpdateUser(given), stub.UpdateRole(widened)]

    for call in attempts():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        answer = from_rpc_error(refused.value)
        assert (answer.reason, answer.metadata["permission"]) == ("ABOVE_OWN_RIGHTS", "training.runs.get")

    # In no group but hers Mia reaches nobody whom Lea does not.
    await set_members(town.auth, admin, hill.id, otto)
    for call in attempts():
        await call


async def test_nobody_comes_to_stand_for_one_whose_data_he_does_not_reach(start_auth: Any) -> None:
    town = await Town(await start_auth(public_url="https://espalier.example.org"), "all").build()
    channel = town.auth.channel((await town.auth.login()).access_token)
    for name, scope in (("owner", "own"), ("overseer", "all")):
        role = resources_pb2.Role(name=name, permissions=["training.runs.get"], scope=scope)
        await access_pb2_grpc.RoleServiceStub(channel).CreateRole(access_pb2.CreateRoleRequest(role=role))
    otto = town.ids["otto"]
    await give_roles(town.auth, otto, ["owner"])

    def attempts(token: str) -> list[Awaitable[Any]]:
        address = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=otto, email="lea@example.org"))
        address.update_mask.paths.append("email")
        stub = registration_pb2_grpc.RegistrationServiceStub(town.auth.channel(token))
        link = stub.CreatePasswordReset(registration_pb2.CreatePasswordResetRequest(user_id=otto))
        return [link, town.auth.users(token).UpdateUser(address)]

    # She may all that he may, but with data of her own; by his account she would reach his.
    await give_roles(town.auth, town.ids["lea"], ["lead", "owner"])
    for call in attempts((await town.auth.login("lea", PASSWORD)).access_token):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        answer = from_rpc_error(refused.value)
        assert (answer.reason, answer.metadata["permission"]) == ("ABOVE_OWN_RIGHTS", "training.runs.get")

    await give_roles(town.auth, town.ids["lea"], ["lead", "overseer"])
    for call in attempts((await town.auth.login("lea", PASSWORD)).access_token):
        await call


async def test_a_link_for_a_password_is_worth_no_more_than_its_maker_may_do(start_auth: Any) -> None:
    town = await Town(await start_auth(public_url="https://espalier.example.org"), "all").build()
    lea, otto = town.ids["lea"], town.ids["otto"]
    stub = registration_pb2_grpc.RegistrationServiceStub(town.auth.channel(town.token))
    made = await stub.CreatePasswordReset(registration_pb2.CreatePasswordResetRequest(user_id=otto))
    use = registration_pb2.ResetPasswordRequest(new_password="an orange bicycle")
    use.token = made.url.rpartition("=")[2]

    async def is_refused() -> bool:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResetPassword(use)
        return from_rpc_error(refused.value).reason == "INVALID_RESET_LINK"

    await give_roles(town.auth, otto, ["admin"])
    assert await is_refused()
    await give_roles(town.auth, otto, [])
    await give_roles(town.auth, lea, ["viewer"])
    assert await is_refused()
    await give_roles(town.auth, lea, ["lead"])
    await stub.ResetPassword(use)


async def test_who_is_shut_out_while_somebody_registers_has_invited_nobody(start_auth: Any) -> None:
    auth = await start_auth(public_url="https://espalier.example.org", registration="invitation")
    lea = await auth.create_user("lea", roles=["admin"])
    url = (await invite(auth, (await auth.login("lea", PASSWORD)).access_token, roles=["admin"])).url
    newcomer = registration_pb2.RegisterRequest(username="mallory", password="an orange bicycle")
    newcomer.invitation_token = url.rpartition("=")[2]

    with auth.database.transaction() as session:
        lock_rights(session)
        session.execute(update(User).where(User.id == lea.id).values(disabled=True))
        stub = registration_pb2_grpc.RegistrationServiceStub(auth.channel())
        registering = asyncio.ensure_future(stub.Register(newcomer))
        await until_somebody_waits(auth)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await registering
    assert from_rpc_error(refused.value).reason == "INVALID_INVITATION"


async def test_who_uses_a_link_waits_for_who_changes_its_user_and_finds_it_gone(start_auth: Any) -> None:
    auth = await start_auth(public_url="https://espalier.example.org")
    mia = await auth.create_user("mia", roles=[])
    stub = registration_pb2_grpc.RegistrationServiceStub(auth.channel((await auth.login()).access_token))
    made = await stub.CreatePasswordReset(registration_pb2.CreatePasswordResetRequest(user_id=mia.id))
    use = registration_pb2.ResetPasswordRequest(new_password="an orange bicycle")
    use.token = made.url.rpartition("=")[2]

    # As a change of the password does it.
    with auth.database.transaction() as session:
        lock_user(session, mia.id)
        using = asyncio.ensure_future(stub.ResetPassword(use))
        await until_somebody_waits(auth)
        delete_resets_of(session, mia.id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await using
    assert from_rpc_error(refused.value).reason == "INVALID_RESET_LINK"


async def until_somebody_waits(auth: Any) -> None:
    """Until a transaction of this database waits for another."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def waiters() -> int:
        with auth.database.transaction() as session:
            return session.scalar(waiting) or 0

    async with asyncio.timeout(60):
        while not await asyncio.to_thread(waiters):
            await asyncio.sleep(0.05)


async def invite(auth: Any, token: str, **invitation: Any) -> registration_pb2.Invitation:
    stub = registration_pb2_grpc.RegistrationServiceStub(auth.channel(token))
    wanted = registration_pb2.Invitation(**invitation)
    made: registration_pb2.Invitation = await stub.CreateInvitation(
        registration_pb2.CreateInvitationRequest(invitation=wanted)
    )
    return made


async def make_group(auth: Any, token: str, name: str, *members: str) -> access_pb2.Group:
    stub = access_pb2_grpc.GroupServiceStub(auth.channel(token))
    wanted = access_pb2.Group(name=name, member_ids=members)
    made: access_pb2.Group = await stub.CreateGroup(access_pb2.CreateGroupRequest(group=wanted))
    return made


async def set_members(auth: Any, token: str, group_id: str, *members: str) -> None:
    change = access_pb2.UpdateGroupRequest(group=access_pb2.Group(id=group_id, member_ids=members))
    change.update_mask.paths.append("member_ids")
    await access_pb2_grpc.GroupServiceStub(auth.channel(token)).UpdateGroup(change)


async def give_roles(auth: Any, user_id: str, roles: list[str]) -> None:
    change = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user_id, roles=roles))
    change.update_mask.paths.append("roles")
    await (await auth.admin()).UpdateUser(change)
