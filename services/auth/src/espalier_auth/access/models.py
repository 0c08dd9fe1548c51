"""Custom roles, groups and API keys."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, new_id, utc_now


class CustomRole(Base):
    """A role that an administrator put together. The built-in ones are worked out from the contract, and not here."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(default="")
    permissions: Mapped[list[str]]
    # own, group or all.
    scope: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Group(Base):
    """Users who work together: each has the group's roles, and with scope `group` sees what the others own."""

    __tablename__ = "groups"

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    roles: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ApiKey(Base):
    """A key for programs. Only its hash is here: it has 256 random bits, so SHA-256 needs no salt."""

    __tablename__ = "api_keys"

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(LargeBinary)
    last_four: Mapped[str]
    # Empty: all that its owner may do.
    permissions: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    # None: it never expires.
    expires_at: Mapped[datetime | None]
    # To the minute.
    last_used_at: Mapped[datetime | None]
