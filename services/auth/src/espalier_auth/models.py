"""Users, their groups, their sessions, the refresh tokens of a session, and the keys that sign access tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ForeignKey, Index, LargeBinary, Table, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

from espalier_common.db import TYPES, Id, new_id, new_metadata, utc_now

# Made with the platform, so that somebody can let the others in.
FIRST_ADMIN = "admin"

# A password that somebody else chose is good for this long; then its owner needs a link to choose his own.
INITIAL_PASSWORD_LIVES = timedelta(days=14)


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


def table_of(entity: type[Base]) -> Table:
    """The table of an entity, for statements that are sent often: they need no unit of work."""
    return cast(Table, entity.__table__)


class GroupMember(Base):
    """One user in one group."""

    __tablename__ = "group_members"

    group_id: Mapped[Id] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)


class User(Base):
    """A person who signs in. The username never changes and is never given to somebody else."""

    __tablename__ = "users"

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(unique=True)
    display_name: Mapped[str] = mapped_column(default="")
    password_hash: Mapped[str]
    roles: Mapped[list[str]]
    disabled: Mapped[bool] = mapped_column(default=False)
    password_change_required: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_login_at: Mapped[datetime | None]
    # As it is shown and written to; empty when he has none.
    email: Mapped[str] = mapped_column(default="", server_default="")
    # The address for which somebody besides himself vouched: an administrator, an invitation, a provider. It is his
    # alone. A column of its own, so that who changes `email` and knows nothing of it verifies nothing.
    verified_email: Mapped[str | None] = mapped_column(unique=True)
    # Name of the provider he signs in with; empty for a password of the platform.
    identity_provider: Mapped[str] = mapped_column(default="", server_default="")
    # Since when his password signs in with a code alone; None while it does by itself. Here and not beside the secret:
    # whoever reads him to sign him in reads no more than before.
    second_factor_since: Mapped[datetime | None]
    # Those of one provider are found in the order in which they are listed.
    __table_args__ = (Index("ix_users_identity_provider", "identity_provider", "username"),)
    # Ids of his groups, read with each user, so that whoever shows him can say them; None when he is in none.
    group_ids: Mapped[list[str] | None] = column_property(
        select(func.array_agg(aggregate_order_by(GroupMember.group_id, GroupMember.group_id)))
        .where(GroupMember.user_id == id)
        .correlate_except(GroupMember)
        .scalar_subquery()
    )

    @property
    def name(self) -> str:
        """Who he is in tokens and in the audit log: not what he calls himself, for so may others."""
        return self.username

    @property
    def email_verified(self) -> bool:
        """Whether his address is known to be his."""
        return bool(self.email) and self.email == self.verified_email

    def set_email(self, email: str, *, verified: bool) -> None:
        """Gives him an address, or none; what was verified before is anybody's again."""
        self.email = email
        self.verified_email = email if verified and email else None

    @property
    def has_password(self) -> bool:
        """Whether he can sign in with a password of the platform; who was made by single sign-on cannot."""
        return bool(self.password_hash)

    def change_password(self, password_hash: str) -> None:
        """The user chose a password himself."""
        self.password_hash = password_hash
        self.password_change_required = False


@dataclass(frozen=True)
class KnownPassword:
    """What a check of a password takes of a user; the rest is not read before the password is right."""

    id: str
    username: str
    password_hash: str
    disabled: bool
    created_at: datetime
    password_change_required: bool
    # Somebody who knew the password used the account from the caller's address lately.
    from_here: bool = False

    def has_lapsed(self, now: datetime) -> bool:
        """Whether somebody else chose his password and he did not replace it in time.

        Never of the first administrator: if his lapsed, nobody could let anybody in.
        """
        is_late = self.password_change_required and now - self.created_at > INITIAL_PASSWORD_LIVES
        return is_late and self.username != FIRST_ADMIN


@dataclass(frozen=True)
class Person:
    """What a token says of a user, read while he is locked: who he is, and his roles with those of his groups."""

    id: str
    name: str
    password_change_required: bool
    has_second_factor: bool
    roles: frozenset[str]


@dataclass(frozen=True)
class UserChanged:
    """A user was created or changed; `changed_by` is empty for the platform itself."""

    user: User
    changed_by: str


class LoginSession(Base):
    """One sign-in on one device: the family of refresh tokens that descend from it. Ends by expiry or revocation."""

    __tablename__ = "login_sessions"

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    # Where it was used last: address and user agent as the gateway tells them, and when it was refreshed.
    address: Mapped[str] = mapped_column(default="", server_default="")
    agent: Mapped[str] = mapped_column(default="", server_default="")
    last_used_at: Mapped[datetime | None]
    # An identity provider vouched for the user; a password did not.
    by_provider: Mapped[bool] = mapped_column(default=False, server_default="false")
    # SIGNED_OUT, TOKEN_REUSED, ENDED_BY_USER, ENDED_BY_ADMIN, PASSWORD_CHANGED, PASSWORD_RESET, SECOND_FACTOR_CHANGED,
    # SECOND_FACTOR_REMOVED, ENDED_BY_PROVIDER or USER_DISABLED; empty while it lives.
    revoked_reason: Mapped[str] = mapped_column(default="")


class RefreshToken(Base):
    """Gives the next pair of tokens, once. Only its hash is here: it has 256 random bits, so SHA-256 needs no salt."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (Index("ix_refresh_tokens_session_id", "session_id"),)

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    session_id: Mapped[Id] = mapped_column(ForeignKey("login_sessions.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class SigningKey(Base):
    """An Ed25519 key pair. The private half is sealed with the master key; see `keys.py`."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_private_key: Mapped[bytes] = mapped_column(LargeBinary)
    # Which master key sealed it, so that a wrong one is told from a damaged row.
    master_key_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    # From when on it signs: every service has fetched it by then. Unset for keys from before keys were rotated.
    signs_from: Mapped[datetime | None]
    # Retired keys sign nothing more and verify what they signed until it has expired.
    retired_at: Mapped[datetime | None]
