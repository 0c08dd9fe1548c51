"""Every query on settings and banners."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Select, Text, bindparam, cast, delete, func, or_, select
from sqlalchemy.orm import Session

from espalier_auth.models import table_of
from espalier_auth.preferences.models import Banner, ChangedSetting


def find_values(session: Session, names: Sequence[str]) -> dict[str, str]:
    """The values that somebody gave these settings."""
    rows = session.execute(_finding_values(), {"names": list(names)})
    return {row.name: row.value for row in rows}


def list_changed(session: Session) -> Sequence[ChangedSetting]:
    """All settings that somebody changed."""
    return session.scalars(select(ChangedSetting)).all()


def lock_changed(session: Session, name: str) -> ChangedSetting | None:
    """The value that somebody gave the setting; nobody else gives it one until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"setting {name}", 0))))
    return session.get(ChangedSetting, name, populate_existing=True)


def list_banners(session: Session, *, limit: int) -> Sequence[Banner]:
    """Banners by beginning."""
    return session.scalars(select(Banner).order_by(Banner.starts_at, Banner.id).limit(limit)).all()


def count_banners(session: Session) -> int:
    """How many there are."""
    return session.scalars(select(func.count()).select_from(Banner)).one()


def list_current_banners(session: Session, now: datetime) -> Sequence[Banner]:
    """Banners whose time it is."""
    is_current = (Banner.starts_at <= now, or_(Banner.ends_at.is_(None), Banner.ends_at > now))
    return session.scalars(select(Banner).where(*is_current).order_by(Banner.starts_at, Banner.id)).all()


def find_banner(session: Session, banner_id: str) -> Banner | None:
    """The banner of this id."""
    return session.get(Banner, banner_id)


def delete_banners_ended_before(session: Session, moment: datetime) -> None:
    """Forgets banners that nobody has been shown since."""
    session.execute(delete(Banner).where(Banner.ends_at < moment))


@cache
def _finding_values() -> Select[Any]:
    setting = table_of(ChangedSetting).c
    return select(setting.name, setting.value).where(setting.name == func.any(cast(bindparam("names"), ARRAY(Text))))
