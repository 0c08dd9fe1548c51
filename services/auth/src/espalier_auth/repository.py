"""Every query of auth."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Insert,
    Select,
    Update,
    bindparam,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from espalier_auth.access.models import Group
from espalier_auth.access.repository import has_role
from espalier_auth.models import (
    GroupMember,
    KnownPassword,
    LoginSession,
    Person,
    RefreshToken,
    SigningKey,
    User,
    table_of,
)
from espalier_common.audit.changes import MAX_ENTITIES
from espalier_common.audit.recording import note_after, note_before
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import visible

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


def is_email_taken(session: Session, email: str, *, by_other_than: str = "") -> bool:
    """Whether the address is known to be somebody's; nobody else gets it before the lock of rights is given back."""
    owner = session.scalars(select(User.id).where(User.verified_email == email)).one_or_none()
    return owner is not None and owner != by_other_than


def find_password(session: Session, username: str, *, address: str, since: datetime) -> KnownPassword | None:
    """The password of the user who signs in with this name, and whether he did from this address after `since`."""
    row = session.execute(_finding_password(), {"username": username, "address": address, "since": since}).one_or_none()
    return None if row is None else KnownPassword(*row)


def find_password_of(session: Session, user_id: str) -> KnownPassword | None:
    """The password of the user of this id."""
    row = session.execute(select(*_PASSWORD).where(_users.id == user_id)).one_or_none()
    return None if row is None else KnownPassword(*row)


def note_sign_in(
    session: Session, user_id: str, *, password_hash: str, renewed_hash: str, now: datetime
) -> Person | None:
    """Notes the sign-in of a user, who is locked from now on; None when he is disabled or has another password."""
    given = {"user": user_id, "checked": password_hash, "renewed": renewed_hash, "now": now}
    return _person(session.execute(_noting_sign_in(), given).one_or_none())


def lock_person(session: Session, user_id: str) -> Person | None:
    """Who he is and the roles of his groups, as the last change left them; None when he is disabled, or gone.

    He may be read by others, and changed once the transaction has ended.
    """
    return _person(session.execute(_locking_person(), {"user": user_id}).one_or_none())


def add_session(session: Session, login: LoginSession, token: RefreshToken) -> None:
    """Stores a session that begins, with its first refresh token."""
    login_values = {name: getattr(login, name) for name in _SESSION_COLUMNS}
    session.execute(_adding_session(), login_values | _token_values(token))


def add_token(session: Session, token: RefreshToken) -> None:
    """Stores the next refresh token of a session."""
    session.execute(_adding_token(), _token_values(token))


def lock_user(session: Session, user_id: str) -> User | None:
    """The user, whom nobody else changes until the transaction ends."""
    return session.scalars(
        select(User).where(User.id == user_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Which users; empty texts and None do not restrict."""

    query: str = ""
    role: str = ""
    group_id: str = ""
    disabled: bool | None = None
    identity_provider: str | None = None  # "": a password of the platform
    second_factor_enrolled: bool | None = None


def list_users(session: Session, wanted: UserFilter, page: PageRequest, *, by: Principal) -> Page[User]:
    """The users that the caller reaches, by username."""
    query = select(User).where(visible(User.id, by))
    if wanted.query:
        columns = (User.username, User.display_name, User.email)
        query = query.where(or_(*(column.icontains(wanted.query, autoescape=True) for column in columns)))
    if wanted.role:
        query = query.where(has_role(wanted.role))
    if wanted.group_id:
        query = query.where(User.id.in_(select(GroupMember.user_id).where(GroupMember.group_id == wanted.group_id)))
    if wanted.disabled is not None:
        query = query.where(User.disabled.is_(wanted.disabled))
    if wanted.identity_provider is not None:
        query = query.where(User.identity_provider == wanted.identity_provider)
    if wanted.second_factor_enrolled is not None:
        query = query.where(User.second_factor_since.is_not(None) == wanted.second_factor_enrolled)
    return paginate(session, query, order=(User.username.asc(),), page=page)


@dataclass(frozen=True)
class UsedToken:
    """A refresh token that was used, now or before, and the session that it belongs to."""

    session_id: str
    user_id: str
    expires_at: datetime  # of the session
    by_provider: bool


def use_refresh_token(session: Session, token_hash: bytes, now: datetime) -> UsedToken | None:
    """Marks the token used; None when it is unknown, used, expired or revoked.

    One statement decides, so of any number of callers with the same token one gets the session.
    """
    row = session.execute(_using_token(), {"hash": token_hash, "now": now}).one_or_none()
    return UsedToken(*row) if row else None


def find_used_token(session: Session, token_hash: bytes) -> UsedToken | None:
    """The token, if it was exchanged before and its session goes on."""
    row = session.execute(_finding_used_token(), {"hash": token_hash}).one_or_none()
    return UsedToken(*row) if row else None


def find_session_of_token(session: Session, token_hash: bytes) -> LoginSession | None:
    """The session that a token belongs to, whatever the state of either."""
    owner = select(LoginSession).join(RefreshToken, RefreshToken.session_id == LoginSession.id)
    return session.scalars(owner.where(RefreshToken.token_hash == token_hash)).one_or_none()


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


def revoke_sessions_of(session: Session, user_id: str, *, reason: str, now: datetime, but: str = "") -> Sequence[str]:
    """Ends all sessions of a user, or all but one; gives their ids."""
    others = (LoginSession.id != but,) if but else ()
    statement = (
        update(LoginSession)
        .where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None), *others)
        .values(revoked_at=now, revoked_reason=reason)
        .returning(LoginSession.id)
        .execution_options(synchronize_session=False)
    )
    ended = session.scalars(statement).all()
    tell_ended(ended, reason=reason)
    return ended


def delete_ended_sessions(session: Session, before: datetime) -> None:
    """Forgets sessions that ended before this moment, with their tokens."""
    ended = or_(LoginSession.expires_at < before, LoginSession.revoked_at < before)
    session.execute(delete(LoginSession).where(ended).execution_options(synchronize_session=False))


def delete_expired_tokens(session: Session, before: datetime) -> None:
    """Forgets tokens that expired before this moment."""
    expired = delete(RefreshToken).where(RefreshToken.expires_at < before)
    session.execute(expired.execution_options(synchronize_session=False))


# The statements of signing in and going on, put together once, for that costs more than sending them; and of tables
# instead of entities, which cost as much again.

_users = table_of(User).c
_sessions = table_of(LoginSession).c
_tokens = table_of(RefreshToken).c
_groups = table_of(Group).c
_members = table_of(GroupMember).c

_PASSWORD = (
    _users.id,
    _users.username,
    _users.password_hash,
    _users.disabled,
    _users.created_at,
    _users.password_change_required,
)
_PERSON = (
    _users.id,
    _users.username,
    _users.password_change_required,
    _users.second_factor_since.is_not(None).label("has_second_factor"),
    _users.roles,
)
_USED = (_sessions.id, _sessions.user_id, _sessions.expires_at, _sessions.by_provider)
_SESSION_COLUMNS = ("id", "user_id", "created_at", "expires_at", "address", "agent", "by_provider")


@cache
def _finding_password() -> Select[Any]:
    address: BindParameter[str] = bindparam("address")
    here = select(_sessions.id).where(
        _sessions.user_id == _users.id,
        _sessions.address == address,
        _sessions.created_at > bindparam("since"),
        # Nobody is known by an address that is not: sessions from before it was kept have none either.
        address != "",
    )
    from_here = here.correlate(table_of(User)).exists().label("from_here")
    return select(*_PASSWORD, from_here).where(_users.username == bindparam("username"))


@cache
def _noting_sign_in() -> Update:
    he = (_users.id == bindparam("user"), _users.disabled == false())
    unchanged = _users.password_hash == bindparam("checked")
    hash_now = func.coalesce(func.nullif(bindparam("renewed"), ""), _users.password_hash)
    statement = (
        update(table_of(User)).where(*he, unchanged).values(last_login_at=bindparam("now"), password_hash=hash_now)
    )
    return statement.returning(*_PERSON, _roles_of_groups())


@cache
def _locking_person() -> Select[Any]:
    he = (_users.id == bindparam("user"), _users.disabled == false())
    return select(*_PERSON, _roles_of_groups()).where(*he).with_for_update(read=True, of=table_of(User))


def _roles_of_groups() -> ColumnElement[Any]:
    member = select(_members.group_id).where(_members.user_id == _users.id).correlate(table_of(User))
    roles = select(func.jsonb_agg(_groups.roles)).where(_groups.id.in_(member)).correlate(table_of(User))
    return roles.scalar_subquery().label("given")


def _person(row: Any) -> Person | None:
    if row is None:
        return None
    by_groups = {name for roles in row.given or () for name in roles}
    roles = frozenset(row.roles) | by_groups
    return Person(row.id, row.username, row.password_change_required, row.has_second_factor, roles)


@cache
def _using_token() -> Update:
    now: BindParameter[datetime] = bindparam("now")
    good = (
        _tokens.token_hash == bindparam("hash"),
        _tokens.used_at.is_(None),
        _tokens.expires_at > now,
        _tokens.session_id == _sessions.id,
        _sessions.revoked_at.is_(None),
        _sessions.expires_at > now,
    )
    return update(table_of(RefreshToken)).where(*good).values(used_at=now).returning(*_USED)


@cache
def _finding_used_token() -> Select[Any]:
    used = (_tokens.token_hash == bindparam("hash"), _tokens.used_at.is_not(None), _sessions.revoked_at.is_(None))
    return select(*_USED).join(table_of(RefreshToken), _tokens.session_id == _sessions.id).where(*used)


@cache
def _adding_session() -> Insert:
    begun = insert(table_of(LoginSession)).values(
        {name: bindparam(name) for name in _SESSION_COLUMNS} | {"revoked_reason": ""}
    )
    return _adding_token().add_cte(begun.cte("begun"))


@cache
def _adding_token() -> Insert:
    given = {"token_hash": "token_hash", "session_id": "id", "created_at": "created_at", "expires_at": "until"}
    return insert(table_of(RefreshToken)).values({name: bindparam(value) for name, value in given.items()})


def _token_values(token: RefreshToken) -> dict[str, Any]:
    given = {"token_hash": token.token_hash, "id": token.session_id, "created_at": token.created_at}
    return given | {"until": token.expires_at}
