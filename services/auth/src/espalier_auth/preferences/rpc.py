"""The edge of settings and banners: proto in, use case, proto out. Commits here."""

from datetime import UTC

from google.protobuf.empty_pb2 import Empty

from espalier.auth.v1 import settings_pb2, settings_pb2_grpc
from espalier_auth.preferences.errors import InvalidBanner
from espalier_auth.preferences.models import Banner, BannerKind
from espalier_auth.preferences.service import Banners, Preferences, Setting
from espalier_common.db import Database, utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identity import current_principal
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp


class SettingRpc(settings_pb2_grpc.SettingServiceServicer):
    """Settings with their origin, and banners."""

    def __init__(self, database: Database, preferences: Preferences) -> None:
        self._database = database
        self._preferences = preferences
        self._banners = Banners()

    def ListSettings(
        self, request: settings_pb2.ListSettingsRequest, context: object
    ) -> settings_pb2.ListSettingsResponse:
        with self._database.reading() as session:
            found = self._preferences.list(session)
        return settings_pb2.ListSettingsResponse(settings=[_to_setting(each) for each in found])

    def UpdateSetting(self, request: settings_pb2.UpdateSettingRequest, context: object) -> settings_pb2.Setting:
        with self._database.transaction() as session:
            changed = self._preferences.update(
                session,
                request.setting.name,
                request.setting.value,
                by=current_principal().subject,
                etag=request.setting.etag,
            )
        return _to_setting(changed)

    def ResetSetting(self, request: settings_pb2.ResetSettingRequest, context: object) -> settings_pb2.Setting:
        with self._database.transaction() as session:
            return _to_setting(self._preferences.reset(session, request.name))

    def ListCurrentBanners(
        self, request: settings_pb2.ListCurrentBannersRequest, context: object
    ) -> settings_pb2.ListCurrentBannersResponse:
        with self._database.reading() as session:
            found = self._banners.current(session)
        banners = [_to_banner(banner) for banner in found]
        for banner in banners:
            banner.creator_id = ""  # everybody on the internet need not know who the administrators are
        return settings_pb2.ListCurrentBannersResponse(banners=banners)

    def ListBanners(
        self, request: settings_pb2.ListBannersRequest, context: object
    ) -> settings_pb2.ListBannersResponse:
        with self._database.reading() as session:
            found = self._banners.list(session)
        return settings_pb2.ListBannersResponse(banners=[_to_banner(banner) for banner in found])

    def CreateBanner(self, request: settings_pb2.CreateBannerRequest, context: object) -> settings_pb2.Banner:
        with self._database.transaction() as session:
            return _to_banner(self._banners.create(session, _read_banner(request.banner)))

    def DeleteBanner(self, request: settings_pb2.DeleteBannerRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._banners.delete(session, request.banner_id)
        return Empty()


def servicers(database: Database, preferences: Preferences) -> list[ServicerEntry]:
    """The one, for the server."""
    descriptor = settings_pb2.DESCRIPTOR.services_by_name["SettingService"]
    return [(settings_pb2_grpc.add_SettingServiceServicer_to_server, SettingRpc(database, preferences), descriptor)]


def _read_banner(banner: settings_pb2.Banner) -> Banner:
    kinds = {number: name.removeprefix("BANNER_KIND_") for name, number in settings_pb2.BannerKind.items()}
    kind = kinds.get(banner.kind)
    if kind is None:
        found = FieldViolation("banner.kind", f"{banner.kind} is no kind of banner", "ENUM")
        raise InvalidBanner("The kind of the banner is unknown.", violations=[found])
    return Banner(
        text=banner.text,
        kind=BannerKind.INFORMATION if kind == "UNSPECIFIED" else BannerKind(kind),
        starts_at=banner.start_time.ToDatetime(UTC) if banner.HasField("start_time") else utc_now(),
        ends_at=banner.end_time.ToDatetime(UTC) if banner.HasField("end_time") else None,
        creator_id=current_principal().subject,
    )


def _to_banner(banner: Banner) -> settings_pb2.Banner:
    return settings_pb2.Banner(
        id=banner.id,
        text=banner.text,
        kind=settings_pb2.BannerKind.Value(f"BANNER_KIND_{banner.kind}"),
        start_time=timestamp(banner.starts_at),
        end_time=timestamp(banner.ends_at),
        creator_id=banner.creator_id,
    )


def _to_setting(setting: Setting) -> settings_pb2.Setting:
    definition = setting.definition
    return settings_pb2.Setting(
        name=definition.name,
        value=setting.value,
        origin=settings_pb2.SettingOrigin.Value(f"SETTING_ORIGIN_{setting.origin}"),
        type=settings_pb2.SettingType.Value(f"SETTING_TYPE_{definition.type}"),
        description=definition.description,
        default_value=setting.default,
        allowed_values=definition.allowed_values,
        minimum=definition.minimum,
        maximum=definition.maximum,
        variable=definition.variable,
        changed_by=setting.changed_by,
        change_time=timestamp(setting.changed_at),
        etag=setting.etag,
    )
