"""Tries of passwords, as they are counted."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base


class PasswordCount(Base):
    """What was tried and failed in one bucket. No column but the key is indexed: each try updates the row in place."""

    __tablename__ = "password_counts"
    AUDITED = False

    # SHA-256 of what it names: people type their password where the username belongs.
    bucket: Mapped[str] = mapped_column(primary_key=True)
    # Unix times of failures, the oldest first.
    failed: Mapped[list[Any]]
    # Unix times at which checks began that have not ended, by the id of the try.
    running: Mapped[dict[str, Any]]
    # Forgotten after this.
    kept_until: Mapped[datetime]
