"""Lost passwords and lost factors: neither opens the other."""

from typing import Any

from sqlalchemy import select

from espalier.auth.v1 import (
    access_pb2,
    access_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    resources_pb2,
    second_factor_pb2,
    second_factor_pb2_grpc,
    service_pb2,
)
from espalier_auth.models import User

from .answers import refresh, refusal

NEW_PASSWORD = "a loud purple lamp"


async def test_a_new_password_by_a_link_leaves_the_factor_and_signs_nobody_in(start_auth: Any, owner_at: Any) -> None:
    auth = await start_auth(public_url="https://llm.example.org")
    mia = await (await owner_at(auth, "mia")).enrol()
    before = await mia.login(mia.next_code())
    admin = registration_pb2_grpc.RegistrationServiceStub(auth.channel((await auth.login()).access_token))
    link = await admin.CreatePasswordReset(registration_pb2.CreatePasswordResetRequest(user_id=id_of(auth, "mia")))
    anybody = registration_pb2_grpc.RegistrationServiceStub(auth.channel())
    request = registration_pb2.ResetPasswordRequest(token=link.url.split("=")[-1], new_password=NEW_PASSWORD)
    answer = await anybody.ResetPassword(request)

    assert answer.SerializeToString() == b""
    assert await refusal(refresh(auth, before.refresh_token)) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    mia.password = NEW_PASSWORD
    assert await refusal(mia.login()) == ("UNAUTHENTICATED", "SECOND_FACTOR_REQUIRED")
    assert (await mia.login(mia.next_code())).access_token


async def test_a_new_password_of_ones_own_leaves_the_factor(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    request = service_pb2.ChangePasswordRequest(current_password=mia.password, new_password=NEW_PASSWORD)
    await auth.users(mia.token).ChangePassword(request)
    mia.password = NEW_PASSWORD

    assert await refusal(mia.login()) == ("UNAUTHENTICATED", "SECOND_FACTOR_REQUIRED")
    assert (await mia.login(mia.next_code())).access_token


async def test_an_administrator_removes_a_lost_factor_and_the_sessions_of_its_user_end(
    auth: Any, owner_at: Any
) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    before = await mia.login(mia.next_code())
    admin = (await auth.login()).access_token
    assert [user.username for user in await listed(auth, admin) if user.second_factor_enrolled] == ["mia"]
    await remove_of(auth, admin, "mia")

    assert await refusal(refresh(auth, before.refresh_token)) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    assert (await mia.login()).access_token
    assert not any(user.second_factor_enrolled for user in await listed(auth, admin))
    assert await refusal(remove_of(auth, admin, "mia")) == ("FAILED_PRECONDITION", "SECOND_FACTOR_NOT_ENROLLED")
    # Another one may be enrolled; nothing of the first is left.
    await mia.enrol()
    assert await refusal(mia.login(mia.code())) == ("UNAUTHENTICATED", "SECOND_FACTOR_WRONG")


async def test_nobody_removes_a_factor_above_his_own_rights_or_his_own_without_a_code(auth: Any, owner_at: Any) -> None:
    admin = (await auth.login()).access_token
    role = resources_pb2.Role(name="helper", permissions=["auth.users.get", "auth.users.update"], scope="all")
    stub = access_pb2_grpc.RoleServiceStub(auth.channel(admin))
    await stub.CreateRole(access_pb2.CreateRoleRequest(role=role))
    mia = await (await owner_at(auth, "mia", roles=("trainer",))).enrol()
    leo = await (await owner_at(auth, "leo", roles=("helper",))).enrol()

    assert await refusal(remove_of(auth, leo.token, "mia")) == ("PERMISSION_DENIED", "ABOVE_OWN_RIGHTS")
    assert await refusal(remove_of(auth, leo.token, "leo")) == ("FAILED_PRECONDITION", "REMOVE_OWN_WITH_CODE")
    assert await refusal(mia.login()) == ("UNAUTHENTICATED", "SECOND_FACTOR_REQUIRED")


def id_of(auth: Any, username: str) -> str:
    with auth.database.transaction() as session:
        found: str = session.scalars(select(User.id).where(User.username == username)).one()
    return found


async def listed(auth: Any, token: str) -> list[resources_pb2.User]:
    return list((await auth.users(token).ListUsers(service_pb2.ListUsersRequest())).users)


async def remove_of(auth: Any, token: str, username: str) -> None:
    stub = second_factor_pb2_grpc.SecondFactorServiceStub(auth.channel(token))
    request = second_factor_pb2.RemoveUserSecondFactorRequest(user_id=id_of(auth, username))
    await stub.RemoveUserSecondFactor(request)
