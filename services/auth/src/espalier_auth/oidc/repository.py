"""Every query on identities at providers."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.models import User
from espalier_auth.oidc.models import ExternalIdentity, FinishedLogin


def lock_identity(session: Session, *, issuer: str, subject: str) -> ExternalIdentity | None:
    """The identity, which nobody else changes until the transaction ends."""
    found = select(ExternalIdentity).where(ExternalIdentity.issuer == issuer, ExternalIdentity.subject == subject)
    return session.scalars(found.with_for_update().execution_options(populate_existing=True)).one_or_none()


def list_identities(session: Session, user_id: str) -> Sequence[ExternalIdentity]:
    """Who the user is at all providers, by their names."""
    found = select(ExternalIdentity).where(ExternalIdentity.user_id == user_id)
    return session.scalars(found.order_by(ExternalIdentity.provider, ExternalIdentity.issuer)).all()


def has_identity_at(session: Session, user_id: str, *, issuer: str) -> bool:
    """Whether the user is known to a provider."""
    found = select(ExternalIdentity.subject).where(
        ExternalIdentity.user_id == user_id, ExternalIdentity.issuer == issuer
    )
    return session.scalars(found.limit(1)).first() is not None


def has_account_with_email(session: Session, email: str) -> bool:
    """Whether any account goes by this address, said by itself or by a provider."""
    own = select(User.id).where(func.lower(User.email) == email)
    foreign = select(ExternalIdentity.user_id).where(ExternalIdentity.email == email)
    return session.scalars(own.union_all(foreign).limit(1)).first() is not None


def has_account_with_username(session: Session, username: str) -> bool:
    """Whether the name is taken."""
    return session.scalars(select(User.id).where(User.username == username)).first() is not None


def finish_login(session: Session, *, state_hash: bytes, expires_at: datetime, now: datetime) -> bool:
    """Marks a sign-in as finished; False when it was already. Forgets those that would have expired."""
    session.execute(delete(FinishedLogin).where(FinishedLogin.expires_at < now))
    statement = insert(FinishedLogin).values(state_hash=state_hash, expires_at=expires_at)
    marked = statement.on_conflict_do_nothing().returning(FinishedLogin.state_hash)
    return session.scalars(marked).one_or_none() is not None
