"""Every query on identities at providers."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.models import LoginSession, User
from espalier_auth.oidc.models import ExternalIdentity, FinishedLogin, ProviderLogout, ProviderSession


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


def lock_sessions_of(session: Session, issuer: str) -> None:
    """Lets a sign-in and a logout of one provider wait for one another, so that the later sees what the other did."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"provider sessions {issuer}"))))


def follow_logout(session: Session, logout: ProviderLogout, *, now: datetime) -> bool:
    """Uses a logout token up; False when it was already. Forgets those that would be too old anyway."""
    session.execute(delete(ProviderLogout).where(ProviderLogout.expires_at < now))
    values = {column.key: getattr(logout, column.key) for column in ProviderLogout.__table__.columns}
    added = insert(ProviderLogout).values(values).on_conflict_do_nothing().returning(ProviderLogout.token_hash)
    return session.scalars(added).one_or_none() is not None


def list_living_sessions(session: Session, logout: ProviderLogout) -> Sequence[tuple[str, str]]:
    """Ids of the sessions that a logout is about and that go on, each with its user's."""
    about = [ProviderSession.issuer == logout.issuer]
    if logout.subject:
        about.append(ProviderSession.subject == logout.subject)
    if logout.sid:
        # One of the subject of which the provider told no name may be the one.
        about.append(ProviderSession.sid.in_([logout.sid, ""] if logout.subject else [logout.sid]))
    living = (LoginSession.id == ProviderSession.session_id, LoginSession.revoked_at.is_(None))
    found = select(LoginSession.id, LoginSession.user_id).where(*about, *living)
    return session.execute(found.order_by(LoginSession.id)).tuples().all()


def has_ended(session: Session, begun: ProviderSession, *, since: datetime) -> bool:
    """Whether a logout from this moment on is about a session: the rule of `list_living_sessions`, seen from there."""
    of_subject = ProviderLogout.subject == begun.subject
    if begun.sid:
        of_session = and_(ProviderLogout.subject == "", ProviderLogout.sid == begun.sid)
        of_subject = or_(and_(of_subject, ProviderLogout.sid.in_(["", begun.sid])), of_session)
    found = select(ProviderLogout.token_hash).where(
        ProviderLogout.issuer == begun.issuer, ProviderLogout.issued_at >= since, of_subject
    )
    return session.scalars(found.limit(1)).first() is not None
