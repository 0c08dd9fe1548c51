"""What people do at auth: sign in, go on, sign out, and manage users. Each call is part of the caller's transaction."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_auth import repository
from espalier_auth.access.rights import AccessRights, CurrentAccess
from espalier_auth.errors import (
    EmailTaken,
    InvalidCredentials,
    SignInAgain,
    UsernameTaken,
    UserNotFound,
)
from espalier_auth.etags import require_unchanged, user_etag
from espalier_auth.models import LoginSession, Person, RefreshToken, User, UserChanged
from espalier_auth.repository import UserFilter
from espalier_auth.sessions.repository import (
    delete_revocations,
    find_live_session,
    revoke_tokens,
    revoke_tokens_before,
    touch_session,
)
from espalier_auth.settings import SessionRules
from espalier_common.audit.recording import note_actor, note_after, note_reason
from espalier_common.db import new_id, utc_now
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_common.rpc.client import Client
from espalier_common.telemetry import get_logger
from espalier_common.visibility import reaches

Publish = Callable[[Session, UserChanged], None]
"""Puts the event into the outbox, in the same transaction as the change."""

# A link for a new password goes to the e-mail address; whoever changes it has signed in no longer ago than this.
RECENT_SIGN_IN = timedelta(minutes=15)

_log = get_logger(__name__)


class Checked(Protocol):
    """A user as he was read when his password was checked, or somebody else vouched for him."""

    @property
    def id(self) -> str: ...
    @property
    def password_hash(self) -> str: ...


Proof = Callable[[Session, Person], None]
"""Asks for what else somebody has to show to sign in; raises when he does not. He is locked while it is asked."""


@dataclass(frozen=True)
class Continuation:
    """A session goes on: whose it is, what he may do, and the refresh token for the next time."""

    user: Person
    access: CurrentAccess
    refresh_token: str
    session_id: str
    # Taken while the user was locked: whatever changes him later takes back the access tokens from before.
    issued_at: float
    # A second factor is required, and he has none: he may enrol one, and nothing else.
    must_enrol: bool = False


class Sessions:
    """Sign-ins, and what follows from each until it ends."""

    def __init__(self, rules: Callable[[Session], SessionRules], access: AccessRights) -> None:
        self._rules = rules
        self._access = access

    def begin(
        self,
        session: Session,
        checked: Checked,
        *,
        proof: Proof | None = None,
        renewed_hash: str = "",
        client: Client | None = None,
    ) -> Continuation:
        """Signs in the user, as he was read when his password was checked; `renewed_hash` replaces an outdated hash.

        Without `proof` a provider vouched for him. Raises InvalidCredentials when he is disabled, or his password
        changed since the check, and what `proof` raises.
        """
        # Before the user: whoever changes rights takes these two in this order.
        self._access.wait(session)
        user = repository.note_sign_in(
            session, checked.id, password_hash=checked.password_hash, renewed_hash=renewed_hash, now=utc_now()
        )
        if user is None:
            raise InvalidCredentials
        note_actor(user.id, user.name)
        if proof is not None:
            proof(session, user)
        access = self._access.of_roles(session, user.roles)
        now, rules, place = utc_now(), self._rules(session), client or Client()
        login = LoginSession(
            id=new_id(),
            user_id=user.id,
            created_at=now,
            expires_at=now + rules.total,
            address=place.address,
            agent=place.agent,
            by_provider=proof is None,
        )
        note_after({f"login_sessions/{login.id}": {"user_id": user.id, "expires_at": login.expires_at}})
        text, token = _new_token(login.id, now=now, expires_at=min(now + rules.idle, login.expires_at))
        repository.add_session(session, login, token)
        must_enrol = _must_enrol(user, rules, by_provider=login.by_provider)
        return Continuation(user, access, text, login.id, now.timestamp(), must_enrol)

    def renew(self, session: Session, refresh_token: str, *, client: Client | None = None) -> Continuation | None:
        """Exchanges a refresh token; None when it gives nothing.

        A used one seen again means that two hold it, one of them a thief: the whole session ends. That must be
        committed, so this returns where others raise.
        """
        now = utc_now()
        token_hash = hash_token(refresh_token)
        used = repository.use_refresh_token(session, token_hash, now)
        if used is None:
            _end_if_reused(session, token_hash, now)
            return None
        self._access.wait(session)
        user = repository.lock_person(session, used.user_id)
        if user is None:
            return None
        access = self._access.of_roles(session, user.roles)
        now, rules, place = utc_now(), self._rules(session), client or Client()
        if not touch_session(session, used.session_id, address=place.address, agent=place.agent, now=now):
            return None
        text, token = _new_token(used.session_id, now=now, expires_at=min(now + rules.idle, used.expires_at))
        repository.add_token(session, token)
        must_enrol = _must_enrol(user, rules, by_provider=used.by_provider)
        return Continuation(user, access, text, used.session_id, now.timestamp(), must_enrol)

    def end(self, session: Session, refresh_token: str) -> None:
        """Signs out. Does nothing for a token that is unknown, or empty."""
        login = repository.find_session_of_token(session, hash_token(refresh_token))
        if login is not None:
            now = utc_now()
            user = session.get_one(User, login.user_id)
            note_actor(user.id, user.name)
            repository.revoke_session(session, login.id, reason="SIGNED_OUT", now=now)
            revoke_tokens(session, [login.id], now)

    def forget_ended(self, session: Session, *, ended_for: timedelta) -> None:
        """Deletes sessions that ended so long ago that nobody asks for them, and what was taken back with them."""
        before = utc_now() - ended_for
        repository.delete_expired_tokens(session, before)
        delete_revocations(session, utc_now())
        repository.delete_ended_sessions(session, before)


@dataclass(frozen=True, kw_only=True)
class NewUser:
    """A user to create; by default with a password that somebody else chose for him."""

    username: str
    display_name: str
    roles: list[str]
    password_hash: str
    email: str = ""
    # Whoever asks for the user vouches for the address.
    email_verified: bool = False
    password_change_required: bool = True
    disabled: bool = False


@dataclass(frozen=True, kw_only=True)
class UserChanges:
    """New values; None leaves a field as it is."""

    display_name: str | None = None
    email: str | None = None
    roles: list[str] | None = None
    disabled: bool | None = None
    # That of the user as the caller saw him; empty: whatever he is now.
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class OwnChanges:
    """What a user changes of himself; None leaves a field as it is."""

    display_name: str | None = None
    email: str | None = None
    # As in UserChanges.
    etag: str = ""


class Users:
    """Users and what they may do."""

    def __init__(self, access: AccessRights, publish: Publish) -> None:
        self._access = access
        self._publish = publish

    def get(self, session: Session, user_id: str) -> User:
        """The user. Raises UserNotFound."""
        user = repository.find_user(session, user_id)
        if user is None:
            raise UserNotFound(user_id)
        return user

    def see(self, session: Session, user_id: str, *, by: Principal) -> User:
        """The user, for somebody else. Raises UserNotFound, also for one whom the caller does not reach."""
        return _reached(self.get(session, user_id), user_id, by)

    def list(self, session: Session, wanted: UserFilter, page: PageRequest, *, by: Principal) -> Page[User]:
        """The users that the caller reaches, by username."""
        return repository.list_users(session, wanted, page, by=by)

    def create(self, session: Session, new: NewUser, *, by: Principal | None) -> User:
        """Adds a user; `by` is None for the platform itself.

        Raises UsernameTaken, EmailTaken, AboveOwnRights, InvalidUser.
        """
        self._access.lock(session)
        self._access.require_known(session, new.roles, field="user.roles")
        if by is not None:
            self._access.require_rights_of(session, new.roles, by=by)
        if new.email_verified:
            require_free_email(session, new.email)
        user = User(
            username=new.username,
            display_name=new.display_name,
            roles=sorted(set(new.roles)),
            password_hash=new.password_hash,
            password_change_required=new.password_change_required,
            disabled=new.disabled,
        )
        user.set_email(new.email, verified=new.email_verified)
        session.add(user)
        try:
            session.flush()
        except IntegrityError as error:
            raise UsernameTaken(new.username) from error
        self._publish(session, UserChanged(user, changed_by=by.subject if by else ""))
        return user

    def update(self, session: Session, user_id: str, changes: UserChanges, *, by: Principal) -> User:
        """Changes a user.

        A disabled user's sessions end. A user with more rights than the caller is not the caller's to change. Raises
        UserNotFound, ChangedMeanwhile, InvalidUser, AboveOwnRights, EmailTaken, LastAdmin; SignInAgain for the caller's
        own address in an old session.
        """
        self._access.lock(session)
        user = _reached(repository.lock_user(session, user_id), user_id, by)
        require_unchanged(changes.etag, user_etag(user), what=f"the user {user.username}")
        self._access.require_known(session, changes.roles or (), field="user.roles")
        held = {grant.role.name for grant in self._access.grants(session, user)}
        self._access.require_rights_of(session, [*sorted(held), *(changes.roles or ())], by=by)
        if changes.display_name is not None:
            user.display_name = changes.display_name
        if changes.email is not None:
            if user.id == by.subject:
                require_recent_sign_in(session, by, "to change your e-mail address")
            # A link for a forgotten password goes there.
            self._access.require_to_stand_for(session, user, by=by)
            require_free_email(session, changes.email, except_for=user.id)
            user.set_email(changes.email, verified=True)
        if changes.roles is not None:
            self._access.require_reach_of(session, [user.id], set(changes.roles) - held, by=by)
        with self._access.keeping_an_admin(session, user.username):
            if changes.roles is not None:
                user.roles = sorted(set(changes.roles))
            if changes.disabled is not None:
                user.disabled = changes.disabled
        if user.disabled:
            end_all_sessions(session, user.id, reason="USER_DISABLED")
        elif changes.roles is not None:
            revoke_tokens_before(session, [user.id], utc_now())
        self._publish(session, UserChanged(user, changed_by=by.subject))
        return user

    def end_sessions(self, session: Session, user_id: str, *, by: Principal) -> int:
        """Ends all sessions of a user; gives their number. Raises UserNotFound, AboveOwnRights."""
        user = _reached(repository.lock_user(session, user_id), user_id, by)
        held = {grant.role.name for grant in self._access.grants(session, user)}
        self._access.require_rights_of(session, sorted(held), by=by)
        return end_all_sessions(session, user.id, reason="ENDED_BY_ADMIN")

    def update_self(self, session: Session, caller: Principal, changes: OwnChanges) -> User:
        """Changes what is one's own to change.

        Raises UserNotFound, ChangedMeanwhile; SignInAgain for the address in an old session.
        """
        user = repository.lock_user(session, caller.subject)
        if user is None:
            raise UserNotFound(caller.subject)
        require_unchanged(changes.etag, user_etag(user), what="your account")
        if changes.email is not None and changes.email != user.email:
            require_recent_sign_in(session, caller, "to change your e-mail address")
            # Not compared with those of others: everybody could ask so who is here, and keep an address from its owner.
            user.set_email(changes.email, verified=False)
        user.display_name = user.display_name if changes.display_name is None else changes.display_name
        self._publish(session, UserChanged(user, changed_by=user.id))
        return user

    def change_password(self, session: Session, checked: Checked, new_hash: str) -> User:
        """Sets the password of a user, as he was read when the present one was checked, and ends all his sessions.

        Raises InvalidCredentials when it changed since the check.
        """
        user = repository.lock_user(session, checked.id)
        if user is None or user.disabled or user.password_hash != checked.password_hash:
            raise InvalidCredentials
        user.change_password(new_hash)
        end_all_sessions(session, user.id, reason="PASSWORD_CHANGED")
        return user


def _reached(user: User | None, user_id: str, by: Principal) -> User:
    if user is None or not reaches(user.id, by):
        raise UserNotFound(user_id)
    return user


def require_free_email(session: Session, email: str, *, except_for: str = "") -> None:
    """Raises EmailTaken when the address is known to be another user's. Under the lock of rights it stays so."""
    if email and repository.is_email_taken(session, email, by_other_than=except_for):
        raise EmailTaken(email)


def require_recent_sign_in(session: Session, caller: Principal, what: str) -> None:
    """Raises SignInAgain unless the caller's session began within RECENT_SIGN_IN; `what` ends "Sign in again …"."""
    now = utc_now()
    login = find_live_session(session, caller.session, now)
    if login is None or now - login.created_at > RECENT_SIGN_IN:
        raise SignInAgain(what)


def end_all_sessions(session: Session, user_id: str, *, reason: str) -> int:
    """Ends a user's sessions, and takes back every access token that was issued until now. Lock the user before.

    Gives the number of sessions.
    """
    now = utc_now()
    ended = repository.revoke_sessions_of(session, user_id, reason=reason, now=now)
    revoke_tokens_before(session, [user_id], now)
    return len(ended)


def end_other_sessions(session: Session, owner: Principal, *, reason: str) -> None:
    """Ends a user's sessions but the one that asks, with their access tokens. Lock the user before."""
    now = utc_now()
    revoke_tokens(
        session, repository.revoke_sessions_of(session, owner.subject, reason=reason, now=now, but=owner.session), now
    )


def _must_enrol(user: Person, rules: SessionRules, *, by_provider: bool) -> bool:
    return rules.needs_second_factor and not user.has_second_factor and not by_provider


def hash_token(token: str) -> bytes:
    """How a refresh token is stored."""
    return hashlib.sha256(token.encode()).digest()


def _new_token(session_id: str, *, now: datetime, expires_at: datetime) -> tuple[str, RefreshToken]:
    text = secrets.token_urlsafe(32)
    token = RefreshToken(token_hash=hash_token(text), session_id=session_id, created_at=now, expires_at=expires_at)
    return text, token


def _end_if_reused(session: Session, token_hash: bytes, now: datetime) -> None:
    used = repository.find_used_token(session, token_hash)
    if used and repository.revoke_session(session, used.session_id, reason="TOKEN_REUSED", now=now):
        revoke_tokens(session, [used.session_id], now)
        note_actor(used.user_id, session.get_one(User, used.user_id).name)
        note_reason("TOKEN_REUSED")
        _log.warning(
            "a used refresh credential came again, session ended", session_id=used.session_id, user_id=used.user_id
        )
