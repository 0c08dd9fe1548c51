"""Settings with their origin, and banners. Each call is part of the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.orm import Session

from espalier_auth.etags import etag_of, require_unchanged
from espalier_auth.preferences import registry, repository
from espalier_auth.preferences.errors import (
    BannerNotFound,
    InvalidBanner,
    InvalidSetting,
    SettingLocked,
    SettingNotFound,
    TooManyBanners,
)
from espalier_auth.preferences.models import Banner, ChangedSetting
from espalier_auth.preferences.registry import Definition
from espalier_auth.settings import AuthSettings, SessionRules
from espalier_common.audit.recording import note_before
from espalier_common.db import utc_now
from espalier_common.errors import FieldViolation

MAX_BANNERS = 100
# An administrator still sees what was told lately.
BANNERS_KEPT = timedelta(days=90)


class Origin(StrEnum):
    """Where a value comes from."""

    DEFAULT = "DEFAULT"
    ENVIRONMENT = "ENVIRONMENT"
    DATABASE = "DATABASE"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting as it is now; `changed_by` and `changed_at` only where an administrator's value counts."""

    definition: Definition
    value: str
    origin: Origin
    default: str
    changed_by: str = ""
    changed_at: datetime | None = None

    @property
    def etag(self) -> str:
        """The mark of its value."""
        return etag_of(self.value, self.origin)


class Preferences:
    """The settings of registry.py. The environment wins over an administrator, who wins over the default."""

    def __init__(self, settings: AuthSettings) -> None:
        self._definitions = {definition.name: definition for definition in registry.DEFINITIONS}
        self._given = {name: str(getattr(settings, each.field)) for name, each in self._definitions.items()}
        self._locked = {name for name, each in self._definitions.items() if each.field in settings.model_fields_set}
        fields = AuthSettings.model_fields
        self._defaults = {name: str(fields[each.field].default) for name, each in self._definitions.items()}

    def text(self, session: Session, name: str) -> str:
        """The value that counts now."""
        return self.texts(session, name)[0]

    def texts(self, session: Session, *names: str) -> Sequence[str]:
        """The values that count now."""
        changed = {} if self._locked.issuperset(names) else repository.find_values(session, names)
        return [
            self._given[name] if name in self._locked else self._usable(name, changed.get(name)) or self._defaults[name]
            for name in names
        ]

    def integer(self, session: Session, name: str) -> int:
        """The same of a whole number."""
        return int(self.text(session, name))

    def session_rules(self, session: Session) -> SessionRules:
        """How long sessions live that begin now."""
        names = (registry.REFRESH_TOKEN_DAYS, registry.SESSION_DAYS, registry.SECOND_FACTOR)
        idle, total, second_factor = self.texts(session, *names)
        needs_second_factor = second_factor == registry.REQUIRED
        return SessionRules(timedelta(days=int(idle)), timedelta(days=int(total)), needs_second_factor)

    def needs_second_factor(self, session: Session) -> bool:
        """Whether whoever signs in with a password needs a second factor."""
        return self.text(session, registry.SECOND_FACTOR) == registry.REQUIRED

    def password_min_length(self, session: Session) -> int:
        """Characters that a new password needs."""
        return self.integer(session, registry.PASSWORD_MIN_LENGTH)

    def list(self, session: Session) -> list[Setting]:
        """All settings, by name."""
        changed = {row.name: row for row in repository.list_changed(session)}
        return [self._setting(self._definitions[name], changed) for name in sorted(self._definitions)]

    def update(self, session: Session, name: str, value: str, *, by: str, etag: str = "") -> Setting:
        """Sets a value. Raises SettingNotFound, SettingLocked, InvalidSetting, ChangedMeanwhile."""
        definition = self._changeable(name)
        if violation := definition.find_violation(value):
            raise InvalidSetting(f"The value of {name} {violation.description}.", violations=[violation])
        # Through the entity, so that the audit log tells the value before and after.
        row = repository.lock_changed(session, name)
        now = self._setting(definition, {name: row} if row else {})
        require_unchanged(etag, now.etag, what=f"the setting {name}")
        if row is None:
            note_before({f"settings/{name}": {"value": self._defaults[name]}})
            row = ChangedSetting(name=name)
            session.add(row)
        row.value, row.changed_by, row.changed_at = definition.normalized(value), by, utc_now()
        session.flush()
        return self._setting(definition, {name: row})

    def reset(self, session: Session, name: str) -> Setting:
        """Goes back to the default. Raises SettingNotFound, SettingLocked."""
        definition = self._changeable(name)
        row = repository.lock_changed(session, name)
        if row is not None:
            session.delete(row)
        return self._setting(definition, {})

    def _changeable(self, name: str) -> Definition:
        definition = self._definitions.get(name)
        if definition is None:
            raise SettingNotFound(name)
        if name in self._locked:
            raise SettingLocked(name, definition.variable)
        return definition

    def _setting(self, definition: Definition, changed: Mapping[str, ChangedSetting]) -> Setting:
        name, default = definition.name, self._defaults[definition.name]
        if name in self._locked:
            return Setting(definition=definition, value=self._given[name], origin=Origin.ENVIRONMENT, default=default)
        row = changed.get(name)
        if row is None or not self._usable(name, row.value):
            return Setting(definition=definition, value=default, origin=Origin.DEFAULT, default=default)
        return Setting(
            definition=definition,
            value=row.value,
            origin=Origin.DATABASE,
            default=default,
            changed_by=row.changed_by,
            changed_at=row.changed_at,
        )

    def _usable(self, name: str, value: str | None) -> str | None:
        """A value of a release with other bounds counts as none, and does not stop everybody's sign-in."""
        if value is None or self._definitions[name].find_violation(value):
            return None
        return value


class Banners:
    """What everybody is told."""

    def current(self, session: Session) -> Sequence[Banner]:
        """The banners whose time it is."""
        return repository.list_current_banners(session, utc_now())

    def list(self, session: Session) -> Sequence[Banner]:
        """All of them, by beginning."""
        return repository.list_banners(session, limit=MAX_BANNERS)

    def create(self, session: Session, banner: Banner) -> Banner:
        """Tells everybody. Raises InvalidBanner, TooManyBanners."""
        now = utc_now()
        if banner.ends_at is not None and banner.ends_at <= max(banner.starts_at, now):
            after = "the beginning" if banner.starts_at > now else "now"
            found = FieldViolation("banner.end_time", f"must be later than {after}", "ORDER")
            raise InvalidBanner(f"The banner's end {found.description}.", violations=[found])
        if not banner.text.strip():
            found = FieldViolation("banner.text", "is empty", "REQUIRED")
            raise InvalidBanner("The banner says nothing.", violations=[found])
        repository.delete_banners_ended_before(session, now - BANNERS_KEPT)
        if repository.count_banners(session) >= MAX_BANNERS:
            raise TooManyBanners(MAX_BANNERS)
        session.add(banner)
        session.flush()
        return banner

    def delete(self, session: Session, banner_id: str) -> None:
        """Takes a banner away. Raises BannerNotFound."""
        banner = repository.find_banner(session, banner_id)
        if banner is None:
            raise BannerNotFound(banner_id)
        session.delete(banner)
