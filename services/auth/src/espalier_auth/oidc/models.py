"""Who somebody is at an identity provider, and which sign-ins there were finished."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
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
