"""A password that somebody else chose is for the beginning; one's own lasts."""

from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import update

from espalier.auth.v1 import registration_pb2, registration_pb2_grpc, resources_pb2, service_pb2
from espalier_auth.models import INITIAL_PASSWORD_LIVES, User
from espalier_common.db import utc_now
from espalier_common.rpc.status import from_rpc_error

CHOSEN, OWN = "a quiet green lamp", "an orange bicycle"


async def test_a_password_that_an_administrator_chose_ends_and_a_link_helps(start_auth: Any) -> None:
    auth = await start_auth(public_url="https://espalier.example.org")
    user = await auth.create_user("mia", roles=["viewer"], password=CHOSEN)
    _age(auth, INITIAL_PASSWORD_LIVES - timedelta(minutes=5))
    assert (await auth.login("mia", CHOSEN)).password_change_required
    _age(auth, INITIAL_PASSWORD_LIVES + timedelta(seconds=1))

    assert await _refusal(auth, CHOSEN) == "INITIAL_PASSWORD_OVER"
    # Who does not know it learns nothing of that.
    assert await _refusal(auth, "a wrong password") == "INVALID_CREDENTIALS"

    token = (await auth.login()).access_token
    stub = registration_pb2_grpc.RegistrationServiceStub(auth.channel(token))
    made = await stub.CreatePasswordReset(registration_pb2.CreatePasswordResetRequest(user_id=user.id))
    secret = made.url.rpartition("token=")[2]
    await stub.ResetPassword(registration_pb2.ResetPasswordRequest(token=secret, new_password=OWN))
    assert not (await auth.login("mia", OWN)).password_change_required


async def test_ones_own_password_never_expires(auth: Any) -> None:
    await auth.create_user("mia", roles=["viewer"], password=OWN)
    with auth.database.transaction() as session:
        session.execute(update(User).values(password_change_required=False))
    _age(auth, timedelta(days=3650))

    pair = await auth.login("mia", OWN)
    assert (pair.access_token != "", pair.password_change_required) == (True, False)


async def test_the_first_administrator_can_always_let_others_in(start_auth: Any, tmp_path: Any) -> None:
    auth = await start_auth(admin_password="")
    _age(auth, timedelta(days=3650))

    assert (await auth.login("admin", (tmp_path / "admin-password").read_text().strip())).password_change_required


async def test_an_administrator_whose_first_password_ran_out_lets_nobody_in(auth: Any) -> None:
    mia = await auth.create_user("mia", roles=["admin"], password=CHOSEN)
    her_session = auth.users((await auth.login("mia", CHOSEN)).access_token)
    admin = await auth.admin()
    me = (await admin.GetMe(service_pb2.GetMeRequest())).user
    disable = service_pb2.UpdateUserRequest(
        user=resources_pb2.User(id=me.id, disabled=True), update_mask=FieldMask(paths=["disabled"])
    )
    _age(auth, INITIAL_PASSWORD_LIVES + timedelta(seconds=1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await admin.UpdateUser(disable)
    assert from_rpc_error(refused.value).reason == "LAST_ADMIN"

    # Were nobody left all the same, a change that takes nobody away would go on.
    with auth.database.transaction() as session:
        session.execute(update(User).where(User.id == me.id).values(disabled=True))
    mine = resources_pb2.User(id=mia.id, display_name="Mia")
    await her_session.UpdateUser(
        service_pb2.UpdateUserRequest(user=mine, update_mask=FieldMask(paths=["display_name"]))
    )


async def _refusal(auth: Any, password: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.login("mia", password)
    reason: str = from_rpc_error(refused.value).reason
    return reason


def _age(auth: Any, time: timedelta) -> None:
    with auth.database.transaction() as session:
        session.execute(update(User).values(created_at=utc_now() - time))
