"""Who somebody is at an identity provider, and which sign-ins there were finished."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, utc_now


class ExternalIdentity(Base):
    """A user as a provider knows him. Issuer and subject are the key: an e-mail address changes hands, a subject never.

    `granted_roles` are those of the user's roles that he has for his groups at the provider, and for nothing else.
    """

    __tablename__ = "external_identities"

    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    # Name of the provider in the settings.
    provider: Mapped[str]
    # As the provider said at the last sign-in; lower-case; shown, never searched by to sign in.
    email: Mapped[str] = mapped_column(default="", index=True)
    granted_roles: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_login_at: Mapped[datetime] = mapped_column(default=utc_now)


class FinishedLogin(Base):
    """A sign-in that came back from a provider, so that it comes back once. Kept until it would expire anyway."""

    __tablename__ = "finished_oidc_logins"

    state_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ProviderSession(Base):
    """The session at a provider by which one here began, so that it ends with that one."""

    __tablename__ = "provider_sessions"

    session_id: Mapped[Id] = mapped_column(ForeignKey("login_sessions.id", ondelete="CASCADE"), primary_key=True)
    issuer: Mapped[str]
    subject: Mapped[str]
    # The provider's name of its session; empty where it said none.
    sid: Mapped[str]
    __table_args__ = (
        Index("ix_provider_sessions_issuer_subject", "issuer", "subject"),
        Index("ix_provider_sessions_issuer_sid", "issuer", "sid"),
    )


class ProviderLogout(Base):
    """A logout token that was followed, so that it is once, and that no sign-in from before it begins a session."""

    __tablename__ = "provider_logouts"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    issuer: Mapped[str]
    # Empty where the token named none.
    subject: Mapped[str]
    sid: Mapped[str]
    issued_at: Mapped[datetime]
    # From then on no id_token is young enough that was made before it.
    expires_at: Mapped[datetime] = mapped_column(index=True)
