"""Where a second factor is required: who has none may enrol one, and nothing else; providers and keys are not asked."""

import asyncio
import time
from functools import partial
from typing import Any

import grpc.aio
import jwt

from espalier.auth.v1 import (
    access_pb2,
    access_pb2_grpc,
    second_factor_pb2,
    service_pb2,
    sessions_pb2,
    sessions_pb2_grpc,
    settings_pb2,
    settings_pb2_grpc,
)
from espalier_common.rpc.permissions import PUBLIC, all_services, is_before_second_factor, requirement
from espalier_common.rpc.status import from_rpc_error

from .answers import refresh, refusal

TO_ENROL = ("PERMISSION_DENIED", "SECOND_FACTOR_ENROLMENT_REQUIRED")


async def require(auth: Any, value: str = "required") -> None:
    stub = settings_pb2_grpc.SettingServiceStub(auth.channel((await auth.login()).access_token))
    setting = settings_pb2.Setting(name="auth.second_factor", value=value)
    await stub.UpdateSetting(settings_pb2.UpdateSettingRequest(setting=setting))


def test_so_many_calls_are_open_to_who_has_to_enrol_and_no_more() -> None:
    methods = [method for service in all_services() for method in service.methods]

    assert {method.name for method in methods if is_before_second_factor(method)} == {
        "GetMe",
        "GetMySecondFactor",
        "BeginMySecondFactor",
        "ConfirmMySecondFactor",
    }
    assert not [method.name for method in methods if is_before_second_factor(method) and requirement(method) == PUBLIC]


async def test_who_has_none_enrols_and_the_next_refresh_gives_the_rest(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia", roles=("trainer", "auditor"))
    assert not (await mia.login()).second_factor_enrolment_required
    await require(auth)
    pair = await mia.login()

    assert pair.second_factor_enrolment_required
    claims = jwt.decode(pair.access_token, options={"verify_signature": False})
    assert (claims["permissions"], claims["roles"], claims["must_enrol"]) == ([], [], True)
    me = await auth.users(mia.token).GetMe(service_pb2.GetMeRequest())
    assert (me.second_factor_enrolment_required, list(me.permissions)) == (True, [])
    for call in calls_of(auth, mia.token):
        assert await refusal(call()) == TO_ENROL
    # A refresh alone changes nothing.
    pair = await refresh(auth, pair.refresh_token)
    mia.token = pair.access_token
    assert pair.second_factor_enrolment_required
    assert (await mia.factor().GetMySecondFactor(second_factor_pb2.GetMySecondFactorRequest())).required

    await mia.begin()
    await mia.confirm()
    pair = await refresh(auth, pair.refresh_token)
    assert not pair.second_factor_enrolment_required
    assert (await auth.users(pair.access_token).ListUsers(service_pb2.ListUsersRequest())).users
    assert not (await mia.login(mia.next_code())).second_factor_enrolment_required


async def test_a_session_from_before_goes_on_only_to_enrol(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia")
    before = await mia.login()
    await require(auth)
    pair = await refresh(auth, before.refresh_token)

    assert pair.second_factor_enrolment_required
    assert await refusal(calls_of(auth, pair.access_token)[0]()) == TO_ENROL
    # Where nobody requires it any more, all is as it was.
    mia.token = pair.access_token
    await require_no_more(auth, mia)
    assert not (await refresh(auth, pair.refresh_token)).second_factor_enrolment_required


async def end_of(auth: Any, token: str) -> str:
    """Why an access token is refused, once it is."""
    users, end = auth.users(token), time.monotonic() + 120
    while time.monotonic() < end:
        try:
            await users.GetMe(service_pb2.GetMeRequest())
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason
        await asyncio.sleep(0.05)
    return ""


async def require_no_more(auth: Any, mia: Any) -> None:
    """By an administrator who has a factor himself."""
    admin = type(mia)(auth, mia.clock, "admin", "correct horse battery")
    await admin.enrol()
    await admin.login(admin.next_code())
    stub = settings_pb2_grpc.SettingServiceStub(auth.channel(admin.token))
    await stub.ResetSetting(settings_pb2.ResetSettingRequest(name="auth.second_factor"))


async def test_who_removes_his_factor_has_to_enrol_another(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    pair = await mia.login(mia.next_code())
    await require(auth)
    await mia.factor().RemoveMySecondFactor(second_factor_pb2.RemoveMySecondFactorRequest(code=mia.next_code()))

    # The token of before is over within seconds.
    assert await end_of(auth, mia.token) == "TOKEN_REVOKED"
    pair = await refresh(auth, pair.refresh_token)
    assert pair.second_factor_enrolment_required
    assert await refusal(calls_of(auth, pair.access_token)[0]()) == TO_ENROL


async def test_api_keys_are_not_asked(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia", roles=("auditor",))
    await mia.login()
    stub = access_pb2_grpc.ApiKeyServiceStub(auth.channel(mia.token))
    key = await stub.CreateApiKey(access_pb2.CreateApiKeyRequest(api_key=access_pb2.ApiKey(name="nightly")))
    await require(auth)

    assert (await auth.users(key.key).ListUsers(service_pb2.ListUsersRequest())).users
    assert not (await auth.users(key.key).GetMe(service_pb2.GetMeRequest())).second_factor_enrolment_required


async def test_the_environment_may_require_it(start_auth: Any, owner_at: Any) -> None:
    auth = await start_auth(second_factor="required")
    pair = await auth.login()

    assert pair.second_factor_enrolment_required
    assert (await asyncio.to_thread(auth.verifier().verify, pair.access_token)).must_enrol


def calls_of(auth: Any, token: str) -> list[Any]:
    """What anybody who is signed in may do otherwise, and what takes a permission."""
    channel = auth.channel(token)
    sessions = sessions_pb2_grpc.SessionServiceStub(channel)
    users = auth.users(token)
    password = service_pb2.ChangePasswordRequest(current_password="x", new_password="a new password")
    key = access_pb2.CreateApiKeyRequest(api_key=access_pb2.ApiKey(name="a way around"))
    return [
        partial(sessions.ListMySessions, sessions_pb2.ListMySessionsRequest()),
        partial(sessions.EndMyOtherSessions, sessions_pb2.EndMyOtherSessionsRequest()),
        partial(users.UpdateMe, service_pb2.UpdateMeRequest()),
        partial(users.ChangePassword, password),
        partial(users.ListUsers, service_pb2.ListUsersRequest()),
        partial(access_pb2_grpc.ApiKeyServiceStub(channel).CreateApiKey, key),
    ]
