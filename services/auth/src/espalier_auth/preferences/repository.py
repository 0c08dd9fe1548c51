"""Every query on settings and banners."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.preferences.models import Banner, ChangedSetting


def find_value(session: Session, name: str) -> str | None:
    """The value that somebody gave the setting."""
    return session.scalars(select(ChangedSetting.value).where(ChangedSetting.name == name)).one_or_none()


def list_changed(session: Session) -> Sequence[ChangedSetting]:
    """All settings that somebody changed."""
    return session.scalars(select(ChangedSetting)).all()


def put(session: Session, changed: ChangedSetting) -> None:
    """Keeps a value, whoever else keeps one at the same moment."""
    values = {"value": changed.value, "changed_by": changed.changed_by, "changed_at": changed.changed_at}
    statement = insert(ChangedSetting).values(name=changed.name, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[ChangedSetting.name], set_=values))


def remove(session: Session, name: str) -> None:
    """Forgets the value."""
    session.execute(delete(ChangedSetting).where(ChangedSetting.name == name))


def list_banners(session: Session, *, limit: int) -> Sequence[Banner]:
    """Banners by beginning."""
    return session.scalars(select(Banner).order_by(Banner.starts_at, Banner.id).limit(limit)).all()


def count_banners(session: Session) -> int:
    """How many there are."""
    return len(session.scalars(select(Banner.id)).all())


def list_current_banners(session: Session, now: datetime) -> Sequence[Banner]:
    """Banners whose time it is."""
    is_current = (Banner.starts_at <= now, or_(Banner.ends_at.is_(None), Banner.ends_at > now))
    return session.scalars(select(Banner).where(*is_current).order_by(Banner.starts_at, Banner.id)).all()


def delete_banner(session: Session, banner_id: str) -> bool:
    """Removes a banner; False when it is not there."""
    return session.scalars(delete(Banner).where(Banner.id == banner_id).returning(Banner.id)).one_or_none() is not None


def delete_banners_ended_before(session: Session, moment: datetime) -> None:
    """Forgets banners that nobody has been shown since."""
    session.execute(delete(Banner).where(Banner.ends_at < moment))
