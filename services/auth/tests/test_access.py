"""Custom roles and groups: what they give, who may change them, and that an administrator stays."""

import asyncio
import json
from typing import Any

import grpc
import grpc.aio
import pytest

from espalier.auth.v1 import (
    access_pb2,
    access_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    resources_pb2,
    service_pb2,
    service_pb2_grpc,
)
from espalier_common.errors import EspalierError
from espalier_common.identity import Principal
from espalier_common.rpc.status import from_rpc_error

PASSWORD = "a quiet green lamp"


async def test_a_custom_role_gives_its_permissions_with_its_scope(auth: Any) -> None:
    admin = await _as(auth, "admin")
    await admin.create_role("curator", ["training.datasets.list", "models.models.list"], scope="group")
    await auth.create_user("mia", roles=["curator", "tester"])

    mia = await _principal(auth, "mia")

    assert mia.using("training.datasets.list").scope == "group"
    assert mia.using("chat.sessions.create").scope == "own"
    assert not mia.may("training.datasets.create")
    roles = (await admin.users.ListRoles(service_pb2.ListRolesRequest())).roles
    assert [(role.name, role.scope, role.built_in) for role in roles][-1] == ("curator", "group", False)


async def test_a_narrow_permission_stays_narrow_beside_a_wide_role(auth: Any) -> None:
    """Who sees everything and trains for himself does not stop others' runs."""
    await auth.create_user("mia", roles=["viewer", "trainer"])

    mia = await _principal(auth, "mia")

    assert mia.using("training.runs.list").scope == "all"
    assert mia.using("training.runs.stop").scope == "own"


async def test_the_token_of_the_widest_custom_role_stays_small(auth: Any) -> None:
    admin = await _as(auth, "admin")
    every = [item.name for item in (await admin.roles.ListPermissions(access_pb2.ListPermissionsRequest())).permissions]
    await admin.create_role("wide", every, scope="group")
    await admin.create_role("half", every[::2], scope="all")
    await auth.create_user("mia", roles=["wide", "half"])

    token = (await auth.login("mia", PASSWORD)).access_token
    mia = await asyncio.to_thread(auth.verifier().verify, token)

    assert all(mia.may(name) and mia.scope_of(name) == ("group", "all")[name in every[::2]] for name in every)
    assert not mia.may("training.workloads.create")
    assert len(token) < 8192


async def test_a_group_gives_its_roles_to_its_members_and_takes_them_with_it(auth: Any) -> None:
    admin = await _as(auth, "admin")
    mia = await auth.create_user("mia", roles=[])
    group = await admin.create_group("vision", roles=["tester"], members=[mia.id])

    assert (await _principal(auth, "mia")).may("chat.messages.create")
    assert list((await admin.users.GetUser(service_pb2.GetUserRequest(user_id=mia.id))).group_ids) == [group.id]
    await admin.groups.DeleteGroup(access_pb2.DeleteGroupRequest(group_id=group.id))
    assert not (await _principal(auth, "mia")).may("chat.messages.create")


async def test_members_of_a_group_are_each_others_peers(auth: Any) -> None:
    admin = await _as(auth, "admin")
    mia, ben, eve = [await auth.create_user(name, roles=[]) for name in ("mia", "ben", "eve")]
    await admin.create_group("vision", roles=[], members=[mia.id, ben.id])
    await admin.create_group("speech", roles=[], members=[eve.id])

    peers = await (await _as(auth, "mia")).groups.ListPeers(access_pb2.ListPeersRequest())

    assert set(peers.user_ids) == {mia.id, ben.id}


async def test_groups_change_by_mask_and_come_by_name(auth: Any) -> None:
    admin = await _as(auth, "admin")
    mia = await auth.create_user("mia", roles=[])
    vision = await admin.create_group("vision", roles=["tester"], members=[mia.id])
    await admin.create_group("audio", roles=[], members=[])

    changed = await admin.update_group(access_pb2.Group(id=vision.id, description="sees"), "description")
    listed = (await admin.groups.ListGroups(access_pb2.ListGroupsRequest())).groups

    assert (changed.description, list(changed.roles), list(changed.member_ids)) == ("sees", ["tester"], [mia.id])
    assert [group.name for group in listed] == ["audio", "vision"]
    assert (await _refusal(admin.create_group("audio", roles=[], members=[]))).reason == "GROUP_TAKEN"
    unknown = access_pb2.Group(id=vision.id, member_ids=["018f6e1c-0b0a-7c3e-9d5a-0242ac120002"])
    assert (await _refusal(admin.update_group(unknown, "member_ids"))).reason == "INVALID_GROUP"
    assert (await _refusal(admin.update_group(vision, "create_time"))).reason == "INVALID_GROUP"
    wrong: Any = await _refusal(admin.create_group("vision\u202e", roles=[], members=["mia", "otto"]))
    assert [found.field for found in wrong.violations] == ["group.name", "group.member_ids[0]", "group.member_ids[1]"]
    missing = access_pb2.GetGroupRequest(group_id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002")
    assert (await _refusal(admin.groups.GetGroup(missing))).reason == "GROUP_NOT_FOUND"


async def test_a_change_of_a_role_or_group_that_would_undo_anothers_is_refused(auth: Any) -> None:
    admin = await _as(auth, "admin")
    role = await admin.create_role("labeller", ["chat.sessions.list"])
    group = await admin.create_group("vision", roles=[], members=[])
    await admin.update_role(resources_pb2.Role(name=role.name, scope="all", etag=role.etag), "scope")
    await admin.update_group(access_pb2.Group(id=group.id, roles=["tester"], etag=group.etag), "roles")

    for late in (
        admin.update_role(resources_pb2.Role(name=role.name, description="late", etag=role.etag), "description"),
        admin.update_group(access_pb2.Group(id=group.id, name="late", etag=group.etag), "name"),
    ):
        assert (await _refusal(late)).reason == "CHANGED_MEANWHILE"


async def test_a_role_in_use_is_not_deleted(auth: Any) -> None:
    admin = await _as(auth, "admin")
    await admin.create_role("curator", ["training.datasets.list"])
    group = await admin.create_group("vision", roles=["curator"], members=[])
    delete = access_pb2.DeleteRoleRequest(name="curator")

    error = await _refusal(admin.roles.DeleteRole(delete))
    assert (error.reason, "'vision'" in error.message) == ("ROLE_IN_USE", True)
    await admin.groups.DeleteGroup(access_pb2.DeleteGroupRequest(group_id=group.id))
    await admin.roles.DeleteRole(delete)

    assert (await _refusal(admin.roles.DeleteRole(delete))).reason == "ROLE_NOT_FOUND"
    built_in = access_pb2.DeleteRoleRequest(name="viewer")
    assert (await _refusal(admin.roles.DeleteRole(built_in))).reason == "ROLE_IS_BUILT_IN"


@pytest.mark.parametrize(
    ("permissions", "reason"),
    [(["*"], "INVALID_ROLE"), (["training.workloads.create"], "INVALID_ROLE"), (["no.such.thing"], "INVALID_ROLE")],
)
async def test_a_role_has_only_permissions_that_the_platform_offers(
    auth: Any, permissions: list[str], reason: str
) -> None:
    admin = await _as(auth, "admin")

    assert (await _refusal(admin.create_role("curator", permissions))).reason == reason


async def test_nobody_gives_himself_or_others_more_than_he_has(auth: Any) -> None:
    """A helper with all of the administration of people, but nothing of training, and on own data."""
    admin = await _as(auth, "admin")
    manages = [f"auth.{what}.{verb}" for what in ("users", "groups") for verb in ("create", "get", "list", "update")]
    manages += ["auth.roles.list", "auth.roles.create", "auth.roles.update"]
    await admin.create_role("helper", manages)
    await admin.create_role("curator", ["training.datasets.list"])
    helper_user = await auth.create_user("helper", roles=["helper"])
    trainers = await admin.create_group("trainers", roles=["trainer"], members=[])
    helper = await _as(auth, "helper")

    more = resources_pb2.Role(name="helper", permissions=[*manages, "training.runs.create"], scope="own")
    wider = resources_pb2.Role(name="helper", scope="all")
    joined = access_pb2.Group(id=trainers.id, member_ids=[helper_user.id])
    choir = await admin.create_group("choir", roles=[], members=[helper_user.id])
    lifted = access_pb2.Group(id=choir.id, roles=["trainer"])
    assert (await _refusal(helper.update_group(joined, "member_ids"))).reason == "GROUP_NOT_FOUND"
    for call in (
        helper.create_role("mine", ["training.runs.create"]),
        helper.create_role("mine", ["auth.users.list"], scope="all"),
        helper.update_role(more, "permissions"),
        helper.update_role(wider, "scope"),
        helper.update_role(resources_pb2.Role(name="curator", description="x"), "description"),
        helper.create_group("mine", roles=["curator"], members=[helper_user.id]),
        helper.update_group(lifted, "roles"),
        helper.update_user(resources_pb2.User(id=helper_user.id, roles=["helper", "admin"]), "roles"),
    ):
        refusal = await _refusal(call)
        assert refusal.reason == "ABOVE_OWN_RIGHTS"
        assert refusal.metadata["permission"]
    assert (await helper.create_role("mine", ["auth.users.list"])).name == "mine"
    assert (await helper.create_group("mine", roles=["helper"], members=[helper_user.id])).name == "mine"


async def test_who_was_demoted_does_not_promote_himself_with_the_token_from_before(auth: Any) -> None:
    admin = await _as(auth, "admin")
    mia_user = await auth.create_user("mia", roles=["admin"])
    mia = await _as(auth, "mia")

    await admin.update_user(resources_pb2.User(id=mia_user.id, roles=["viewer"]), "roles")

    error = await _refusal(mia.update_user(resources_pb2.User(id=mia_user.id, roles=["admin"]), "roles"))
    assert error.reason in {"ABOVE_OWN_RIGHTS", "TOKEN_REVOKED"}


async def test_the_last_administrator_stays_who_is_one_by_a_group(auth: Any) -> None:
    admin = await _as(auth, "admin")
    me = (await admin.users.GetMe(service_pb2.GetMeRequest())).user
    mia_user = await auth.create_user("mia", roles=[])
    group = await admin.create_group("admins", roles=["admin"], members=[mia_user.id])
    mia = await _as(auth, "mia")
    await mia.update_user(resources_pb2.User(id=me.id, roles=["viewer"]), "roles")

    for call in (
        mia.groups.DeleteGroup(access_pb2.DeleteGroupRequest(group_id=group.id)),
        mia.update_group(access_pb2.Group(id=group.id), "member_ids"),
        mia.update_group(access_pb2.Group(id=group.id, roles=["viewer"]), "roles"),
        mia.update_user(resources_pb2.User(id=mia_user.id, disabled=True), "disabled"),
    ):
        assert (await _refusal(call)).reason == "LAST_ADMIN"


async def test_two_who_end_the_last_administrations_at_once_do_not_both_succeed(auth: Any) -> None:
    """One is an administrator by his role, the other by a group: each takes it from the other."""
    admin = await _as(auth, "admin")
    me = (await admin.users.GetMe(service_pb2.GetMeRequest())).user
    mia_user = await auth.create_user("mia", roles=[])
    group = await admin.create_group("admins", roles=["admin"], members=[mia_user.id])
    mia = await _as(auth, "mia")
    for _ in range(6):
        answers = await asyncio.gather(
            admin.update_group(access_pb2.Group(id=group.id), "member_ids"),
            mia.update_user(resources_pb2.User(id=me.id, roles=[]), "roles"),
            return_exceptions=True,
        )
        won = [not isinstance(answer, BaseException) for answer in answers]
        assert sorted(won) == [False, True]
        if won[0]:
            await admin.update_group(access_pb2.Group(id=group.id, member_ids=[mia_user.id]), "member_ids")
        else:
            await mia.update_user(resources_pb2.User(id=me.id, roles=["admin"]), "roles")
        admin, mia = await _as(auth, "admin"), await _as(auth, "mia")


async def test_what_a_user_may_do_is_told_with_its_sources(auth: Any) -> None:
    admin = await _as(auth, "admin")
    mia = await auth.create_user("mia", roles=["trainer"])
    await admin.create_group("vision", roles=["viewer"], members=[mia.id])

    found = {item.permission: item for item in await admin.explain(mia.id)}

    listed, created, denied = (
        found[f"{name}"] for name in ("training.runs.list", "training.runs.create", "auth.users.create")
    )
    assert (listed.allowed, listed.scope) == (True, "all")
    assert list(listed.sources) == ["role trainer", "group vision: role viewer"]
    assert (created.scope, list(created.sources)) == ("own", ["role trainer"])
    assert (denied.allowed, denied.scope, list(denied.sources)) == (False, "", [])
    (single,) = await admin.explain(mia.id, "training.runs.stop")
    assert (single.permission, single.allowed) == ("training.runs.stop", True)
    # A slip of the pen is told: an administrator would read that he may it himself.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await admin.explain(mia.id, "training.runs.halt")
    assert from_rpc_error(refused.value).reason == "NO_SUCH_PERMISSION"

    await admin.update_user(resources_pb2.User(id=mia.id, disabled=True), "disabled")
    (single,) = await admin.explain(mia.id, "training.runs.list")
    assert (single.allowed, list(single.sources)) == (False, ["the account is disabled"])


async def test_a_role_that_is_promised_is_not_deleted(start_auth: Any) -> None:
    """An invitation, the groups of an identity provider and open registration all give it to people to come."""
    provider = {
        "name": "corporate",
        "issuer": "https://login.example.org",
        "client_id": "espalier",
        "role_mapping": {"ml": ["curator"]},
    }
    auth = await start_auth(
        oidc_providers=json.dumps([provider]),
        registration_roles=["newcomer"],
        public_url="https://espalier.example.org",
    )
    admin = await _as(auth, "admin")
    for name in ("curator", "newcomer", "guest"):
        await admin.create_role(name, ["training.datasets.list"])
    invitation = registration_pb2.Invitation(roles=["guest"], email="eva@example.org")
    made = await admin.registration.CreateInvitation(registration_pb2.CreateInvitationRequest(invitation=invitation))

    for name, holder in (
        ("curator", "the settings of the identity provider 'corporate'"),
        ("newcomer", "ESPALIER_REGISTRATION_ROLES"),
        ("guest", "the invitation of eva@example.org"),
    ):
        error = await _refusal(admin.roles.DeleteRole(access_pb2.DeleteRoleRequest(name=name)))
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ROLE_IN_USE")
        assert holder in error.message
    await admin.registration.DeleteInvitation(registration_pb2.DeleteInvitationRequest(invitation_id=made.id))
    await admin.roles.DeleteRole(access_pb2.DeleteRoleRequest(name="guest"))


async def test_the_permissions_are_told_with_what_they_allow(auth: Any) -> None:
    admin = await _as(auth, "admin")

    found = (await admin.roles.ListPermissions(access_pb2.ListPermissionsRequest())).permissions

    told = {item.name: item.description for item in found}
    assert told["auth.groups.delete"] == "Deletes a group; its members stay."
    assert all(told.values())
    assert not [name for name in told if name.startswith(("training.workloads.", "auth.revocations."))]


async def test_an_auditor_reads_who_may_what_and_changes_nothing(auth: Any) -> None:
    await auth.create_user("ann", roles=["auditor"])
    ann = await _as(auth, "ann")

    assert (await ann.users.ListUsers(service_pb2.ListUsersRequest())).users
    assert (await ann.roles.ListPermissions(access_pb2.ListPermissionsRequest())).permissions
    assert (await _refusal(ann.create_role("mine", ["auth.users.list"]))).code == "PERMISSION_DENIED"
    assert not (await _principal(auth, "ann")).may("training.runs.list")


class _Caller:
    """The calls of this page in the name of one user."""

    def __init__(self, auth: Any, token: str) -> None:
        channel = auth.channel(token)
        self.users: Any = service_pb2_grpc.UserServiceStub(channel)
        self.roles: Any = access_pb2_grpc.RoleServiceStub(channel)
        self.groups: Any = access_pb2_grpc.GroupServiceStub(channel)
        self.registration: Any = registration_pb2_grpc.RegistrationServiceStub(channel)

    async def create_role(self, name: str, permissions: list[str], scope: str = "own") -> Any:
        role = resources_pb2.Role(name=name, permissions=permissions, scope=scope)
        return await self.roles.CreateRole(access_pb2.CreateRoleRequest(role=role))

    async def update_role(self, role: resources_pb2.Role, *paths: str) -> Any:
        request = access_pb2.UpdateRoleRequest(role=role)
        request.update_mask.paths.extend(paths)
        return await self.roles.UpdateRole(request)

    async def create_group(self, name: str, *, roles: list[str], members: list[str]) -> Any:
        group = access_pb2.Group(name=name, roles=roles, member_ids=members)
        return await self.groups.CreateGroup(access_pb2.CreateGroupRequest(group=group))

    async def update_group(self, group: access_pb2.Group, *paths: str) -> Any:
        request = access_pb2.UpdateGroupRequest(group=group)
        request.update_mask.paths.extend(paths)
        return await self.groups.UpdateGroup(request)

    async def update_user(self, user: resources_pb2.User, *paths: str) -> Any:
        request = service_pb2.UpdateUserRequest(user=user)
        request.update_mask.paths.extend(paths)
        return await self.users.UpdateUser(request)

    async def explain(self, user_id: str, permission: str = "") -> Any:
        request = access_pb2.ExplainPermissionsRequest(user_id=user_id, permission=permission)
        return (await self.roles.ExplainPermissions(request)).permissions


async def _as(auth: Any, username: str) -> _Caller:
    pair = await (auth.login() if username == "admin" else auth.login(username, PASSWORD))
    return _Caller(auth, pair.access_token)


async def _principal(auth: Any, username: str) -> Principal:
    token = (await auth.login(username, PASSWORD)).access_token
    principal: Principal = await asyncio.to_thread(auth.verifier().verify, token)
    return principal


async def _refusal(call: Any) -> EspalierError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)
