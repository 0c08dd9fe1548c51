"""Invitations, and links for a new password."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, new_id, utc_now


class Invitation(Base):
    """Lets one person register. Of its token only the hash is here: it has 256 random bits."""

    __tablename__ = "invitations"

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    # Empty for whoever has the link.
    email: Mapped[str] = mapped_column(default="")
    roles: Mapped[list[str]]
    group_ids: Mapped[list[str]]
    creator_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class PasswordReset(Base):
    """Lets a user choose a new password, once: the row goes with its use. Only the hash of the token is here."""

    __tablename__ = "password_resets"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    # The administrator who made it; None for one that was mailed to the user.
    creator_id: Mapped[Id | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
