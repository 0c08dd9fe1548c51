"""One's own account and the administration of others."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select

from espalier.auth.v1 import access_pb2, access_pb2_grpc, events_pb2, resources_pb2, service_pb2
from espalier_common.errors import EspalierError
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox


async def test_who_signed_in_sees_himself_and_what_he_may_do(auth: Any) -> None:
    await auth.create_user("mia", roles=["viewer"])
    me = await auth.users((await auth.login("mia", "a quiet green lamp")).access_token).GetMe(
        service_pb2.GetMeRequest()
    )

    assert (me.user.username, list(me.user.roles), me.scope) == ("mia", ["viewer"], "all")
    assert "training.runs.get" in me.permissions
    assert "training.runs.create" not in me.permissions


async def test_a_new_user_signs_in_and_is_asked_for_a_password_of_his_own(auth: Any) -> None:
    user = await auth.create_user("mia.b-1", roles=["tester", "tester"])

    assert (user.username, list(user.roles), user.password_change_required) == ("mia.b-1", ["tester"], True)
    assert (await auth.login("mia.b-1", "a quiet green lamp")).password_change_required


async def test_a_password_is_taken_exactly_as_typed(auth: Any) -> None:
    password = "  Grüße 漢字 🙂 " + "é" * 200
    await auth.create_user("mia", roles=[], password=password)

    assert (await auth.login("mia", password)).access_token
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login("mia", password.strip())


async def test_a_second_user_of_the_same_name_is_refused(auth: Any) -> None:
    await auth.create_user("mia", roles=[])
    error = await _refusal(auth.create_user("mia", roles=[]))

    assert (error.code, error.reason) == ("ALREADY_EXISTS", "USERNAME_TAKEN")


@pytest.mark.parametrize(
    ("user", "password", "violation"),
    [
        ({"username": ""}, "a quiet green lamp", ("user.username", "REQUIRED")),
        ({"username": "Mia"}, "a quiet green lamp", ("user.username", "PATTERN")),
        ({"username": "m"}, "a quiet green lamp", ("user.username", "TOO_SHORT")),
        ({"username": "mia", "roles": ["viewer", "root"]}, "a quiet green lamp", ("user.roles[1]", "UNKNOWN_ROLE")),
        ({"username": "mia"}, "short", ("password", "TOO_SHORT")),
        ({"username": "mia"}, "x" * 1025, ("password", "TOO_LONG")),
        ({"username": "mia"}, "password12345678", ("password", "TOO_EASY")),
        ({"username": "wolfgang-amadeus"}, "wolfgang-amadeus", ("password", "TOO_EASY")),
        ({"username": "mia"}, "nul\x00in the middle", ("password", "NUL")),
    ],
)
async def test_a_user_who_cannot_be_created_is_refused_with_the_field(
    auth: Any, user: dict[str, Any], password: str, violation: tuple[str, str]
) -> None:
    request = service_pb2.CreateUserRequest(user=resources_pb2.User(**user), password=password)
    error: Any = await _refusal((await auth.admin()).CreateUser(request))

    assert [(found.field, found.reason) for found in error.violations] == [violation]


async def test_all_that_is_wrong_with_a_new_user_is_told_at_once(auth: Any) -> None:
    wrong = resources_pb2.User(username="mia", display_name="M\u202e", email="nowhere", roles=["viewer", "king"])
    request = service_pb2.CreateUserRequest(user=wrong, password="password12345678")
    error: Any = await _refusal((await auth.admin()).CreateUser(request))

    fields = ["user.display_name", "user.email", "user.roles[1]", "password"]
    assert [found.field for found in error.violations] == fields


async def test_users_come_in_pages_by_name(auth: Any) -> None:
    for name in ("zoe", "ben", "mia"):
        await auth.create_user(name, roles=[])
    admin = await auth.admin()

    first = await admin.ListUsers(service_pb2.ListUsersRequest(page_size=3))
    second = await admin.ListUsers(service_pb2.ListUsersRequest(page_size=3, page_token=first.next_page_token))

    assert [user.username for user in [*first.users, *second.users]] == ["admin", "ben", "mia", "zoe"]
    assert not second.next_page_token
    forged = service_pb2.ListUsersRequest(page_token=f"A{first.next_page_token}")
    assert (await _refusal(admin.ListUsers(forged))).reason == "INVALID_PAGE_TOKEN"


async def test_users_are_found_by_name_role_group_and_state(auth: Any) -> None:
    mia = await auth.create_user("mia_50", roles=["viewer"])
    await auth.create_user("ben", roles=["trainer"])
    zoe = await auth.create_user("zoe", roles=[])
    await _update(auth, resources_pb2.User(id=zoe.id, disabled=True), "disabled")
    groups = access_pb2_grpc.GroupServiceStub(auth.channel((await auth.login()).access_token))
    team = access_pb2.Group(name="vision", roles=["tester"], member_ids=[mia.id])
    group = await groups.CreateGroup(access_pb2.CreateGroupRequest(group=team))
    admin = await auth.admin()

    async def found(**wanted: Any) -> list[str]:
        return [user.username for user in (await admin.ListUsers(service_pb2.ListUsersRequest(**wanted))).users]

    assert await found(query="MIA_") == ["mia_50"]
    assert await found(query="%") == []
    assert await found(role="tester") == await found(group_id=group.id) == ["mia_50"]
    assert await found(role="trainer", disabled=False) == ["ben"]
    assert await found(disabled=True) == ["zoe"]
    assert "ben" in await found(identity_provider="")
    assert await found(identity_provider="corporate") == []


async def test_a_change_that_would_undo_anothers_is_refused(auth: Any) -> None:
    seen = await auth.create_user("mia", roles=["viewer"])
    first = await _update(auth, resources_pb2.User(id=seen.id, roles=["tester"], etag=seen.etag), "roles")
    late = resources_pb2.User(id=seen.id, roles=["trainer"], etag=seen.etag)

    error = await _refusal(_update(auth, late, "roles"))
    assert (error.code, error.reason) == ("ABORTED", "CHANGED_MEANWHILE")
    again = await _update(auth, resources_pb2.User(id=seen.id, roles=["trainer"], etag=first.etag), "roles")
    assert list(again.roles) == ["trainer"]


async def test_nobody_undoes_of_himself_what_another_changed(auth: Any) -> None:
    seen = await auth.create_user("mia", roles=["viewer"])
    own = auth.users((await auth.login("mia", "a quiet green lamp")).access_token)
    changed = await _update(auth, resources_pb2.User(id=seen.id, display_name="Mia B."), "display_name")

    def own_change(etag: str) -> service_pb2.UpdateMeRequest:
        request = service_pb2.UpdateMeRequest(user=resources_pb2.User(display_name="Mia", etag=etag))
        request.update_mask.paths.append("display_name")
        return request

    error = await _refusal(own.UpdateMe(own_change(seen.etag)))
    assert (error.code, error.reason) == ("ABORTED", "CHANGED_MEANWHILE")
    assert (await own.UpdateMe(own_change(changed.etag))).display_name == "Mia"


async def test_only_the_fields_of_the_mask_change(auth: Any) -> None:
    user = await auth.create_user("mia", roles=["viewer"])
    changed = resources_pb2.User(id=user.id, display_name="Mia B.", roles=["trainer"], disabled=True)

    updated = await _update(auth, changed, "display_name")

    assert (updated.display_name, list(updated.roles), updated.disabled) == ("Mia B.", ["viewer"], False)
    principal = await asyncio.to_thread(
        auth.verifier().verify, (await auth.login("mia", "a quiet green lamp")).access_token
    )
    assert principal.name == "mia"


@pytest.mark.parametrize(
    ("user_id", "paths", "field"),
    [
        ("018f6e1c-0b0a-7c3e-9d5a-0242ac120002", ["username"], "update_mask"),
        ("018f6e1c-0b0a-7c3e-9d5a-0242ac120002", ["password_hash"], "update_mask"),
        ("018f6e1c-0b0a-7c3e-9d5a-0242ac120002", [], "update_mask"),
        ("mia", ["disabled"], "user.id"),
        ("", ["disabled"], "user.id"),
    ],
)
async def test_an_update_of_something_else_is_refused(auth: Any, user_id: str, paths: list[str], field: str) -> None:
    error: Any = await _refusal(_update(auth, resources_pb2.User(id=user_id), *paths))

    assert error.code == "INVALID_ARGUMENT"
    assert [found.field for found in error.violations] == [field]


async def test_an_unknown_user_is_not_found(auth: Any) -> None:
    unknown = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"

    assert (await _refusal(_update(auth, resources_pb2.User(id=unknown), "disabled"))).reason == "USER_NOT_FOUND"
    request = service_pb2.GetUserRequest(user_id=unknown)
    assert (await _refusal((await auth.admin()).GetUser(request))).reason == "USER_NOT_FOUND"


@pytest.mark.parametrize(
    "name", ["a\u202eb", "\x1b[31mred", "two\nlines", "\u200b", "\ufeffAda", "\u2028", "  ", "x\u0085y", "\u2066a"]
)
async def test_a_name_that_others_cannot_read_as_it_is_is_refused(auth: Any, name: str) -> None:
    mia = await auth.create_user("mia", roles=[])
    own = auth.users((await auth.login("mia", "a quiet green lamp")).access_token)
    change = service_pb2.UpdateMeRequest(user=resources_pb2.User(display_name=name))
    change.update_mask.paths.append("display_name")
    made = service_pb2.CreateUserRequest(password="a quiet green lamp")
    made.user.username, made.user.display_name = "eve", name

    for call in (
        own.UpdateMe(change),
        (await auth.admin()).CreateUser(made),
        _update_as(await auth.admin(), resources_pb2.User(id=mia.id, display_name=name), "display_name"),
    ):
        error = await _refusal(call)
        assert [(each.field, each.reason) for each in error.violations] == [("user.display_name", "INVISIBLE")]


@pytest.mark.parametrize("name", ["", "Ada Lovelace", "Zoë ❤️", "👩‍👧‍👦", "می‌خواهم", "山田 太郎", " trimmed "])
async def test_any_name_that_people_have_is_accepted(auth: Any, name: str) -> None:
    made = service_pb2.CreateUserRequest(password="a quiet green lamp")
    made.user.username, made.user.display_name = "mia", name
    assert (await (await auth.admin()).CreateUser(made)).display_name == name.strip()


async def test_a_user_can_be_created_disabled_and_let_in_later(auth: Any) -> None:
    request = service_pb2.CreateUserRequest(password="a quiet green lamp")
    request.user.username, request.user.disabled = "mia", True
    user = await (await auth.admin()).CreateUser(request)

    assert user.disabled
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login("mia", "a quiet green lamp")
    change = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user.id))
    change.update_mask.paths.append("disabled")
    await (await auth.admin()).UpdateUser(change)
    assert (await auth.login("mia", "a quiet green lamp")).access_token


async def test_a_disabled_user_is_out_and_comes_back_with_a_new_session(auth: Any) -> None:
    user = await auth.create_user("mia", roles=["viewer"])
    pair = await auth.login("mia", "a quiet green lamp")
    await _update(auth, resources_pb2.User(id=user.id, disabled=True), "disabled")

    refresh = service_pb2.RefreshRequest(refresh_token=pair.refresh_token)
    assert (await _refusal(auth.sign_in().Refresh(refresh))).reason == "INVALID_REFRESH_TOKEN"
    await _update(auth, resources_pb2.User(id=user.id, disabled=False), "disabled")
    assert (await _refusal(auth.sign_in().Refresh(refresh))).reason == "INVALID_REFRESH_TOKEN"
    assert (await auth.login("mia", "a quiet green lamp")).access_token


@pytest.mark.parametrize(("change", "path"), [({"disabled": True}, "disabled"), ({"roles": ["viewer"]}, "roles")])
async def test_the_last_administrator_stays(auth: Any, change: dict[str, Any], path: str) -> None:
    me = (await (await auth.admin()).GetMe(service_pb2.GetMeRequest())).user
    other = await auth.create_user("mia", roles=["admin"])
    await _update(auth, resources_pb2.User(id=other.id, disabled=True), "disabled")

    assert (await _refusal(_update(auth, resources_pb2.User(id=me.id, **change), path))).reason == "LAST_ADMIN"

    await _update(auth, resources_pb2.User(id=other.id), "disabled")
    assert await _update(auth, resources_pb2.User(id=me.id, **change), path)


async def test_two_administrators_who_disable_each_other_do_not_both_succeed(auth: Any) -> None:
    people = [await auth.create_user(name, roles=["admin"]) for name in ("mia", "ben")]
    me = (await (await auth.admin()).GetMe(service_pb2.GetMeRequest())).user
    mia, ben = [auth.users((await auth.login(name, "a quiet green lamp")).access_token) for name in ("mia", "ben")]
    await _update_as(mia, resources_pb2.User(id=me.id, disabled=True), "disabled")
    for _ in range(8):
        answers = await asyncio.gather(
            *(
                _update_as(stub, resources_pb2.User(id=user.id, disabled=True), "disabled")
                for stub, user in ((mia, people[1]), (ben, people[0]))
            ),
            return_exceptions=True,
        )
        won = [isinstance(answer, resources_pb2.User) for answer in answers]
        assert sorted(won) == [False, True]
        winner, loser = (mia, people[1]) if won[0] else (ben, people[0])
        await _update_as(winner, resources_pb2.User(id=loser.id), "disabled")
        mia, ben = [auth.users((await auth.login(name, "a quiet green lamp")).access_token) for name in ("mia", "ben")]


async def test_nobody_gives_or_touches_rights_above_his_own(auth: Any) -> None:
    """A helper who manages users and trains: no built-in role is like that, a role of tomorrow may be."""
    mia = await auth.create_user("mia", roles=["viewer"])
    me = (await (await auth.admin()).GetMe(service_pb2.GetMeRequest())).user
    helper = auth.users(await _token_of_helper(auth))

    for role, lacking in (("admin", "*"), ("viewer", "auth.roles.list")):
        user = resources_pb2.User(username="eve", roles=[role])
        request = service_pb2.CreateUserRequest(user=user, password="a quiet green lamp")
        refusal = await _refusal(helper.CreateUser(request))
        assert (refusal.reason, refusal.metadata["permission"]) == ("ABOVE_OWN_RIGHTS", lacking)
    for user, path in (
        (resources_pb2.User(id=me.id, disabled=True), "disabled"),
        (resources_pb2.User(id=mia.id, roles=["admin"]), "roles"),
    ):
        assert (await _refusal(_update_as(helper, user, path))).reason == "ABOVE_OWN_RIGHTS"
    request = service_pb2.CreateUserRequest(
        user=resources_pb2.User(username="eve", roles=["tester"]), password="a quiet green lamp"
    )
    assert (await helper.CreateUser(request)).username == "eve"


@pytest.mark.parametrize("role", ["trainer", "tester", "viewer"])
async def test_others_than_administrators_manage_no_users(auth: Any, role: str) -> None:
    await auth.create_user("mia", roles=[role])
    mia = auth.users((await auth.login("mia", "a quiet green lamp")).access_token)

    for call in (
        mia.ListUsers(service_pb2.ListUsersRequest()),
        mia.GetUser(service_pb2.GetUserRequest(user_id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002")),
        mia.CreateUser(service_pb2.CreateUserRequest(user=resources_pb2.User(username="eve"), password="x" * 12)),
        mia.UpdateUser(service_pb2.UpdateUserRequest(user=resources_pb2.User())),
    ):
        assert (await _refusal(call)).code == "PERMISSION_DENIED"


async def test_the_roles_are_told_with_their_permissions(auth: Any) -> None:
    roles = (await (await auth.admin()).ListRoles(service_pb2.ListRolesRequest())).roles

    assert [(role.name, role.scope) for role in roles] == [
        ("admin", "all"),
        ("trainer", "own"),
        ("tester", "own"),
        ("viewer", "all"),
        ("auditor", "all"),
    ]
    assert all(role.built_in for role in roles)
    assert all(role.description and role.permissions for role in roles)


async def test_other_services_are_told_of_new_and_changed_users(auth: Any) -> None:
    user = await auth.create_user("mia", roles=["viewer"])
    await _update(auth, resources_pb2.User(id=user.id, disabled=True), "disabled")

    with auth.database.transaction() as session:
        told = select(outbox).where(outbox.c.subject == events_pb2.UserChanged.DESCRIPTOR.full_name)
        rows = session.execute(told.order_by(outbox.c.sequence)).all()
    events = [events_pb2.UserChanged.FromString(bytes(row.payload)) for row in rows]
    assert {row.subject for row in rows} == {"espalier.auth.v1.UserChanged"}
    assert [(event.username, list(event.roles), event.disabled, bool(event.changed_by)) for event in events] == [
        ("admin", ["admin"], False, False),
        ("mia", ["viewer"], False, True),
        ("mia", ["viewer"], True, True),
    ]


async def _update(auth: Any, user: resources_pb2.User, *paths: str) -> resources_pb2.User:
    return await _update_as(await auth.admin(), user, *paths)


async def _update_as(stub: Any, user: resources_pb2.User, *paths: str) -> resources_pb2.User:
    request = service_pb2.UpdateUserRequest(user=user)
    request.update_mask.SetInParent()
    request.update_mask.paths.extend(paths)
    updated: resources_pb2.User = await stub.UpdateUser(request)
    return updated


async def _refusal(call: Any) -> EspalierError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def _token_of_helper(auth: Any) -> str:
    """The rights of a trainer on own data, and the management of all users."""
    admin = await auth.admin()
    manages = ["auth.users.create", "auth.users.get", "auth.users.list", "auth.users.update"]
    role = resources_pb2.Role(name="helper", permissions=manages, scope="all")
    roles = access_pb2_grpc.RoleServiceStub(auth.channel((await auth.login()).access_token))
    await roles.CreateRole(access_pb2.CreateRoleRequest(role=role))
    await admin.CreateUser(
        service_pb2.CreateUserRequest(
            user=resources_pb2.User(username="helper", roles=["helper", "trainer"]), password="a quiet green lamp"
        )
    )
    return str((await auth.login("helper", "a quiet green lamp")).access_token)
