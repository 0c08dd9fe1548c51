"""What is refused about settings and banners, one line each.

NotFound             SettingNotFound · BannerNotFound
FailedPrecondition   SettingLocked
InvalidArgument      InvalidSetting · InvalidBanner
ResourceExhausted    TooManyBanners
"""

from espalier_common.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted


class SettingNotFound(NotFound):
    reason = "SETTING_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__("setting", name)


class SettingLocked(FailedPrecondition):
    """The environment says the value."""

    reason = "SETTING_LOCKED"

    def __init__(self, name: str, variable: str) -> None:
        super().__init__(
            f"{name} is set by the environment variable {variable} of auth, which wins: "
            "change it there, or remove it there and restart auth to change it here."
        )


class InvalidSetting(InvalidArgument):
    reason = "INVALID_SETTING"


class BannerNotFound(NotFound):
    reason = "BANNER_NOT_FOUND"

    def __init__(self, id: str) -> None:
        super().__init__("banner", id)


class InvalidBanner(InvalidArgument):
    reason = "INVALID_BANNER"


class TooManyBanners(ResourceExhausted):
    reason = "TOO_MANY_BANNERS"

    def __init__(self, most: int) -> None:
        super().__init__(f"There are {most} banners already, the most that are kept; delete old ones first.")
