"""Settings that somebody changed, and banners."""

import enum
from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, new_id, utc_now


class ChangedSetting(Base):
    """A setting that has another value than the built-in one. A row is here as long as it does."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    # Id of who changed it.
    changed_by: Mapped[str]
    changed_at: Mapped[datetime] = mapped_column(default=utc_now)


class BannerKind(enum.StrEnum):
    """Weight of a banner."""

    INFORMATION = "INFORMATION"
    WARNING = "WARNING"
    MAINTENANCE = "MAINTENANCE"


class Banner(Base):
    """Something that everybody is told from a beginning to an end; without an end, until it is taken away."""

    __tablename__ = "banners"
    PUBLIC = frozenset({"text"})  # so that the audit log tells it

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    text: Mapped[str]
    kind: Mapped[str]
    starts_at: Mapped[datetime] = mapped_column(default=utc_now)
    ends_at: Mapped[datetime | None] = mapped_column(index=True)
    # Id of who made it.
    creator_id: Mapped[str]
