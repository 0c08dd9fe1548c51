"""Settings with their origin, what reads them, and banners."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from espalier.auth.v1 import resources_pb2, settings_pb2, settings_pb2_grpc
from espalier_auth.models import LoginSession, RefreshToken
from espalier_auth.preferences.models import ChangedSetting
from espalier_common.rpc.status import from_rpc_error

SESSION_DAYS = "auth.session_days"


async def test_a_setting_has_its_default_until_an_administrator_changes_it(auth: Any) -> None:
    stub = await _admin(auth)
    before = await _setting(stub, SESSION_DAYS)
    assert (before.value, before.default_value, before.changed_by) == ("90", "90", "")
    assert before.origin == settings_pb2.SETTING_ORIGIN_DEFAULT
    assert (before.minimum, before.maximum, before.variable) == (1, 3650, "ESPALIER_SESSION_DAYS")

    changed = await _update(stub, SESSION_DAYS, "030")

    assert changed == await _setting(stub, SESSION_DAYS)
    assert changed.value == "30"
    assert changed.origin == settings_pb2.SETTING_ORIGIN_DATABASE
    assert changed.changed_by
    assert changed.change_time.seconds > 0
    assert await stub.ResetSetting(settings_pb2.ResetSettingRequest(name=SESSION_DAYS)) == before


async def test_a_value_that_somebody_else_gave_meanwhile_is_not_undone(auth: Any) -> None:
    stub = await _admin(auth)
    seen = await _setting(stub, SESSION_DAYS)
    changed = await _update(stub, SESSION_DAYS, "30")
    wanted = settings_pb2.Setting(name=SESSION_DAYS, value="40", etag=seen.etag)

    stale = await _refusal(stub.UpdateSetting(settings_pb2.UpdateSettingRequest(setting=wanted)))
    assert stale.reason == "CHANGED_MEANWHILE"
    wanted.etag = changed.etag
    assert (await stub.UpdateSetting(settings_pb2.UpdateSettingRequest(setting=wanted))).value == "40"


async def test_the_environment_wins_and_locks(start_auth: Any) -> None:
    auth = await start_auth(session_days=7)
    with auth.database.transaction() as session:
        session.add(ChangedSetting(name=SESSION_DAYS, value="30", changed_by="somebody"))
    stub = await _admin(auth)

    kept = await _setting(stub, SESSION_DAYS)
    assert (kept.value, kept.origin) == ("7", settings_pb2.SETTING_ORIGIN_ENVIRONMENT)
    for call in (
        _update(stub, SESSION_DAYS, "8"),
        stub.ResetSetting(settings_pb2.ResetSettingRequest(name=SESSION_DAYS)),
    ):
        error = await _refusal(call)
        assert error.reason == "SETTING_LOCKED"
        assert "ESPALIER_SESSION_DAYS" in error.message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (SESSION_DAYS, "0", "from 1 to 3650"),
        (SESSION_DAYS, "3651", "from 1 to 3650"),
        (SESSION_DAYS, "", "from 1 to 3650"),
        (SESSION_DAYS, " 7", "from 1 to 3650"),
        (SESSION_DAYS, "1_0", "from 1 to 3650"),
        (SESSION_DAYS, "٣", "from 1 to 3650"),
        (SESSION_DAYS, "9" * 4000, "from 1 to 3650"),
        ("auth.registration", "Open", "closed, invitation, open"),
        ("auth.password_min_length", "11", "from 12 to 128"),
    ],
)
async def test_a_wrong_value_is_refused_with_the_right_ones(auth: Any, name: str, value: str, said: str) -> None:
    error = await _refusal(_update(await _admin(auth), name, value))

    assert error.reason == "INVALID_SETTING"
    assert said in error.message
    assert [violation.field for violation in error.violations] == ["setting.value"]


async def test_an_unknown_setting_is_not_found(auth: Any) -> None:
    stub = await _admin(auth)
    for call in (_update(stub, "auth.nothing", "1"), stub.ResetSetting(settings_pb2.ResetSettingRequest(name="x"))):
        assert (await _refusal(call)).reason == "SETTING_NOT_FOUND"


async def test_nobody_but_an_administrator_sees_settings_or_writes_banners(auth: Any) -> None:
    for role in ("trainer", "viewer"):
        await auth.create_user(f"one-{role}", roles=[role])
        pair = await auth.login(f"one-{role}", "a quiet green lamp")
        stub = settings_pb2_grpc.SettingServiceStub(auth.channel(pair.access_token))
        calls = (
            stub.ListSettings(settings_pb2.ListSettingsRequest()),
            stub.ListBanners(settings_pb2.ListBannersRequest()),
            _update(stub, SESSION_DAYS, "1"),
            stub.CreateBanner(settings_pb2.CreateBannerRequest(banner=settings_pb2.Banner(text="x"))),
        )
        for call in calls:
            assert (await _refusal(call)).code == "PERMISSION_DENIED"


async def test_sessions_that_begin_live_as_long_as_the_settings_say(auth: Any) -> None:
    stub = await _admin(auth)
    await _update(stub, SESSION_DAYS, "3")
    await _update(stub, "auth.refresh_token_days", "2")
    await auth.login()

    with auth.database.transaction() as session:
        login = session.scalars(select(LoginSession).order_by(LoginSession.created_at.desc()).limit(1)).one()
        token = session.scalars(select(RefreshToken).where(RefreshToken.session_id == login.id)).one()
    assert login.expires_at - login.created_at == timedelta(days=3)
    assert token.expires_at - token.created_at == timedelta(days=2)


async def test_new_passwords_are_as_long_as_the_setting_says(auth: Any) -> None:
    await _update(await _admin(auth), "auth.password_min_length", "20")

    error = await _refusal(auth.create_user("ada", roles=["viewer"], password="a quiet green lamp"))
    assert "at least 20 characters" in error.message
    assert [violation.field for violation in error.violations] == ["password"]
    assert await auth.create_user("ada", roles=["viewer"], password="a quiet green lamp that shines")


async def test_a_value_that_an_older_release_allowed_counts_as_none(auth: Any) -> None:
    with auth.database.transaction() as session:
        session.add(ChangedSetting(name=SESSION_DAYS, value="100000", changed_by="somebody"))

    found = await _setting(await _admin(auth), SESSION_DAYS)
    assert (found.value, found.origin) == ("90", settings_pb2.SETTING_ORIGIN_DEFAULT)


async def test_a_banner_is_shown_from_its_beginning_to_its_end(auth: Any) -> None:
    stub = await _admin(auth)
    now = datetime.now(UTC)
    await _create_banner(stub, text="now", end=now + timedelta(hours=1))
    await _create_banner(stub, text="for ever", kind=settings_pb2.BANNER_KIND_WARNING)
    await _create_banner(
        stub, text="tomorrow", start=now + timedelta(days=1), kind=settings_pb2.BANNER_KIND_MAINTENANCE
    )

    anybody = settings_pb2_grpc.SettingServiceStub(auth.channel())
    shown = await anybody.ListCurrentBanners(settings_pb2.ListCurrentBannersRequest())
    listed = await stub.ListBanners(settings_pb2.ListBannersRequest())

    assert [(banner.text, banner.kind) for banner in shown.banners] == [
        ("now", settings_pb2.BANNER_KIND_INFORMATION),
        ("for ever", settings_pb2.BANNER_KIND_WARNING),
    ]
    assert [banner.text for banner in listed.banners] == ["now", "for ever", "tomorrow"]
    assert [bool(banner.creator_id) for banner in (*shown.banners, *listed.banners)] == [False] * 2 + [True] * 3
    await stub.DeleteBanner(settings_pb2.DeleteBannerRequest(banner_id=shown.banners[0].id))
    shown = await anybody.ListCurrentBanners(settings_pb2.ListCurrentBannersRequest())
    assert [banner.text for banner in shown.banners] == ["for ever"]


async def test_a_banner_that_would_never_be_seen_is_refused(auth: Any) -> None:
    stub = await _admin(auth)
    now = datetime.now(UTC)
    past, later = now - timedelta(seconds=1), now + timedelta(hours=1)

    for call, field in (
        (_create_banner(stub, text="x", end=past), "banner.end_time"),
        (_create_banner(stub, text="x", start=later, end=now + timedelta(minutes=1)), "banner.end_time"),
        (_create_banner(stub, text="  "), "banner.text"),
        (_create_banner(stub, text="x", kind=99), "banner.kind"),
    ):
        error = await _refusal(call)
        assert [violation.field for violation in error.violations] == [field]
    missing = "01940000-0000-7000-8000-000000000001"
    error = await _refusal(stub.DeleteBanner(settings_pb2.DeleteBannerRequest(banner_id=missing)))
    assert error.reason == "BANNER_NOT_FOUND"


async def _admin(auth: Any) -> Any:
    pair: resources_pb2.TokenPair = await auth.login()
    return settings_pb2_grpc.SettingServiceStub(auth.channel(pair.access_token))


async def _setting(stub: Any, name: str) -> settings_pb2.Setting:
    answer = await stub.ListSettings(settings_pb2.ListSettingsRequest())
    found: settings_pb2.Setting = next(setting for setting in answer.settings if setting.name == name)
    return found


async def _update(stub: Any, name: str, value: str) -> settings_pb2.Setting:
    request = settings_pb2.UpdateSettingRequest(setting=settings_pb2.Setting(name=name, value=value))
    changed: settings_pb2.Setting = await stub.UpdateSetting(request)
    return changed


async def _create_banner(
    stub: Any, *, text: str, start: datetime | None = None, end: datetime | None = None, kind: int = 0
) -> settings_pb2.Banner:
    banner = settings_pb2.Banner(text=text, kind=kind)  # type: ignore[arg-type]
    for field, moment in (("start_time", start), ("end_time", end)):
        if moment is not None:
            stamp = Timestamp()
            stamp.FromDatetime(moment)
            getattr(banner, field).CopyFrom(stamp)
    made: settings_pb2.Banner = await stub.CreateBanner(settings_pb2.CreateBannerRequest(banner=banner))
    return made


async def _refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)
