"""Tries of passwords, as they are counted."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, new_id, utc_now


class PasswordTry(Base):
    """One check of a password, counted in one bucket: failed, or not ended yet. One that succeeds is deleted."""

    __tablename__ = "password_tries"
    AUDITED = False
    __table_args__ = (Index("ix_password_tries_bucket_started_at", "bucket", "started_at"),)

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    # SHA-256 of what it names: people type their password where the username belongs.
    bucket: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    failed_at: Mapped[datetime | None]
