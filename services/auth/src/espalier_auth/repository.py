"""Every query of auth."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from espalier_auth.access.models import Group
from espalier_auth.models import GroupMember, LoginSession, RefreshToken, SigningKey, User
from espalier_common.audit.changes import MAX_ENTITIES
from espalier_common.audit.recording import note_after, note_before
from espalier_common.pagination import Page, PageRequest, paginate

# "auth": any number but that of the migrations, the same in all processes of auth.
_START_LOCK = 0x61757468


def lock_start(session: Session) -> None:
    """Waits until no other process of auth makes its first key or its first user; held until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(_START_LOCK)))


def find_current_key(session: Session, now: datetime) -> SigningKey | None:
    """The key that signs: the newest whose time has come."""
    due = SigningKey.retired_at.is_(None) & (_signs_from() <= now)
    return session.scalars(select(SigningKey).where(due).order_by(_signs_from().desc()).limit(1)).one_or_none()


def find_next_key(session: Session, now: datetime) -> SigningKey | None:
    """The key that is published and will sign soon."""
    return session.scalars(select(SigningKey).where(_signs_from() > now).limit(1)).first()


def retire_keys_before(session: Session, current: SigningKey) -> int:
    """Lets the keys that signed before this one only verify; gives their number."""
    since = current.signs_from or current.created_at
    statement = (
        update(SigningKey)
        .where(SigningKey.retired_at.is_(None), _signs_from() < since)
        .values(retired_at=since)
        .returning(SigningKey.kid)
        .execution_options(synchronize_session=False)
    )
    return len(session.scalars(statement).all())


def delete_retired_keys(session: Session, before: datetime) -> None:
    """Forgets keys that were retired before this moment."""
    session.execute(delete(SigningKey).where(SigningKey.retired_at < before))


def list_keys(session: Session) -> Sequence[SigningKey]:
    """All keys: the one that signs, retired ones, then the next."""
    is_next = _signs_from() > func.now()
    order = (is_next, SigningKey.retired_at.desc().nulls_first(), SigningKey.created_at.desc())
    return session.scalars(select(SigningKey).order_by(*order)).all()


def _signs_from() -> ColumnElement[datetime]:
    return func.coalesce(SigningKey.signs_from, SigningKey.created_at)


def has_users(session: Session) -> bool:
    """Whether anybody was ever created."""
    return session.scalars(select(User.id).limit(1)).first() is not None


def find_user(session: Session, user_id: str) -> User | None:
    """The user of this id."""
    return session.get(User, user_id)


def find_user_by_username(session: Session, username: str) -> User | None:
    """The user who signs in with this name."""
    return session.scalars(select(User).where(User.username == username)).one_or_none()


def lock_user(session: Session, user_id: str) -> User | None:
    """The user, whom nobody else changes until the transaction ends."""
    return session.scalars(
        select(User).where(User.id == user_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


def lock_user_as_he_is(session: Session, user_id: str) -> User | None:
    """The user as the last change left him; he may be read by others, and changed once the transaction has ended."""
    return session.scalars(
        select(User).where(User.id == user_id).with_for_update(read=True).execution_options(populate_existing=True)
    ).one_or_none()


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Which users; empty texts and None do not restrict."""

    query: str = ""
    role: str = ""
    group_id: str = ""
    disabled: bool | None = None


def list_users(session: Session, wanted: UserFilter, page: PageRequest) -> Page[User]:
    """Users by username."""
    query = select(User)
    if wanted.query:
        columns = (User.username, User.display_name, User.email)
        query = query.where(or_(*(column.icontains(wanted.query, autoescape=True) for column in columns)))
    if wanted.role:
        by_group = select(GroupMember.user_id).join(Group, Group.id == GroupMember.group_id)
        having = User.id.in_(by_group.where(Group.roles.contains([wanted.role])))
        query = query.where(or_(User.roles.contains([wanted.role]), having))
    if wanted.group_id:
        query = query.where(User.id.in_(select(GroupMember.user_id).where(GroupMember.group_id == wanted.group_id)))
    if wanted.disabled is not None:
        query = query.where(User.disabled.is_(wanted.disabled))
    return paginate(session, query, order=(User.username.asc(),), page=page)


def use_refresh_token(session: Session, token_hash: bytes, now: datetime) -> str | None:
    """Marks the token used and gives its session's id; None when it is unknown, used, expired or revoked.

    One statement decides, so of any number of callers with the same token one gets the session.
    """
    statement = (
        update(RefreshToken)
        .where(
            RefreshToken.token_hash == token_hash,
            RefreshToken.used_at.is_(None),
            RefreshToken.expires_at > now,
            RefreshToken.session_id == LoginSession.id,
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > now,
        )
        .values(used_at=now)
        .returning(RefreshToken.session_id)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(statement).one_or_none()


def find_session_of_token(session: Session, token_hash: bytes) -> LoginSession | None:
    """The session that a token belongs to, whatever the state of either."""
    owner = select(LoginSession).join(RefreshToken, RefreshToken.session_id == LoginSession.id)
    return session.scalars(owner.where(RefreshToken.token_hash == token_hash)).one_or_none()


def was_used(session: Session, token_hash: bytes) -> bool:
    """Whether the token was exchanged before."""
    used = select(RefreshToken.used_at).where(RefreshToken.token_hash == token_hash)
    return session.scalars(used).one_or_none() is not None


def revoke_session(session: Session, session_id: str, *, reason: str, now: datetime) -> bool:
    """Ends a session; False when it had ended before."""
    statement = (
        update(LoginSession)
        .where(LoginSession.id == session_id, LoginSession.revoked_at.is_(None))
        .values(revoked_at=now, revoked_reason=reason)
        .returning(LoginSession.id)
        .execution_options(synchronize_session=False)
    )
    ended = session.scalars(statement).all()
    tell_ended(ended, reason=reason)
    return bool(ended)


def tell_ended(session_ids: Sequence[str], *, reason: str) -> None:
    """Tells the audit log which sessions ended by a bulk update, which the ORM does not see."""
    told = [f"login_sessions/{id}" for id in session_ids[:MAX_ENTITIES]]
    note_before({label: {"revoked_reason": ""} for label in told})
    note_after({label: {"revoked_reason": reason} for label in told})


def revoke_sessions_of(session: Session, user_id: str, *, reason: str, now: datetime) -> int:
    """Ends all sessions of a user; gives their number."""
    statement = (
        update(LoginSession)
        .where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None))
        .values(revoked_at=now, revoked_reason=reason)
        .returning(LoginSession.id)
        .execution_options(synchronize_session=False)
    )
    ended = session.scalars(statement).all()
    tell_ended(ended, reason=reason)
    return len(ended)


def delete_ended_sessions(session: Session, before: datetime) -> int:
    """Forgets sessions that ended before this moment, with their tokens; gives their number."""
    ended = or_(LoginSession.expires_at < before, LoginSession.revoked_at < before)
    statement = delete(LoginSession).where(ended).returning(LoginSession.id)
    return len(session.scalars(statement.execution_options(synchronize_session=False)).all())


def delete_expired_tokens(session: Session, before: datetime) -> int:
    """Forgets tokens that expired before this moment; gives their number."""
    statement = delete(RefreshToken).where(RefreshToken.expires_at < before).returning(RefreshToken.token_hash)
    return len(session.scalars(statement.execution_options(synchronize_session=False)).all())
