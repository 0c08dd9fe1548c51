"""Who signs in at a provider is asked for no code here: the provider asks for what it wants."""

from typing import Any

import pytest

from espalier.auth.v1 import (
    oidc_pb2,
    second_factor_pb2,
    second_factor_pb2_grpc,
    service_pb2,
    settings_pb2,
    settings_pb2_grpc,
)
from espalier_common.testing.authenticator import codes_of

from .provider_process import ADA, Relying, StartOidc, reason

pytestmark = pytest.mark.slow

PASSWORD = "a quiet green lamp"


async def test_a_sign_in_at_the_provider_is_whole_where_a_factor_is_required(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-41", **ADA)
    await require(relying)
    pair = await relying.finish(await relying.answer("sub-41"))

    for _ in range(2):  # and once more after a refresh
        assert not pair.second_factor_enrolment_required
        me = await relying.auth.users(pair.access_token).GetMe(service_pb2.GetMeRequest())
        assert me.permissions
        assert not me.second_factor_enrolment_required
        pair = await relying.auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=pair.refresh_token))
    # He has no password that a factor could stand beside.
    begin = factor(relying, pair.access_token).BeginMySecondFactor(second_factor_pb2.BeginMySecondFactorRequest())
    assert await reason(begin) == "PASSWORD_ELSEWHERE"


async def test_a_linked_user_is_asked_with_his_password_and_not_at_the_provider(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    await relying.auth.create_user("ada", roles=["viewer"], password=PASSWORD)
    relying.provider.put("sub-42", **ADA)
    pair = await relying.auth.login("ada", PASSWORD)
    await relying.stub(pair.access_token).LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-42")))
    mine = factor(relying, pair.access_token)
    begun = await mine.BeginMySecondFactor(second_factor_pb2.BeginMySecondFactorRequest())
    for code in codes_of(begun.secret):
        given = mine.ConfirmMySecondFactor(second_factor_pb2.ConfirmMySecondFactorRequest(code=code))
        if await reason(given) != "SECOND_FACTOR_WRONG":
            break

    assert await reason(relying.auth.login("ada", PASSWORD)) == "SECOND_FACTOR_REQUIRED"
    assert (await relying.finish(await relying.answer("sub-42"))).access_token


async def require(relying: Relying) -> None:
    token = (await relying.auth.login()).access_token
    setting = settings_pb2.Setting(name="auth.second_factor", value="required")
    stub = settings_pb2_grpc.SettingServiceStub(relying.auth.channel(token))
    await stub.UpdateSetting(settings_pb2.UpdateSettingRequest(setting=setting))


def factor(relying: Relying, token: str) -> Any:
    return second_factor_pb2_grpc.SecondFactorServiceStub(relying.auth.channel(token))
