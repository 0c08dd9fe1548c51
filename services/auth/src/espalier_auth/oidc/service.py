"""Whom a provider's word lets in. Each call is part of the caller's transaction.

The key is issuer and subject. An account that exists already is never entered by its e-mail address or its name alone:
whoever owns both links them while he is signed in to the account.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from espalier_auth import repository as users_repository
from espalier_auth.access.rights import AccessRights
from espalier_auth.display_names import shown
from espalier_auth.errors import LastAdmin
from espalier_auth.models import User, UserChanged
from espalier_auth.oidc import repository
from espalier_auth.oidc.errors import (
    AccountExists,
    IdentityNotFound,
    IdentityTaken,
    LinkedAlready,
    LoginExpired,
    OnlyWayIn,
    UserDisabled,
)
from espalier_auth.oidc.login_state import PendingLogin
from espalier_auth.oidc.models import ExternalIdentity
from espalier_auth.oidc.providers import ProviderSettings
from espalier_auth.oidc.signed_token import Claims
from espalier_auth.roles import ADMIN
from espalier_auth.service import NewUser, Publish, Users
from espalier_auth.sessions.repository import revoke_tokens_before
from espalier_common.db import utc_now
from espalier_common.telemetry import get_logger

# No password has this hash, and checking one against it takes as long as against any other.
NO_PASSWORD = ""

_log = get_logger(__name__)


class SingleSignOn:
    """Makes users at their first sign-in, and keeps the roles that their groups give in step."""

    def __init__(self, *, users: Users, access: AccessRights, publish: Publish) -> None:
        self._users = users
        self._access = access
        self._publish = publish

    def finish(self, session: Session, pending: PendingLogin) -> None:
        """Uses the sign-in up. Raises LoginExpired the second time."""
        expires_at = datetime.fromtimestamp(pending.expires_at, UTC)
        state_hash = hashlib.sha256(pending.state.encode()).digest()
        if not repository.finish_login(session, state_hash=state_hash, expires_at=expires_at, now=utc_now()):
            raise LoginExpired

    def admit(self, session: Session, provider: ProviderSettings, claims: Claims, *, separate: bool = False) -> User:
        """The user whom the provider vouches for. Raises AccountExists, UserDisabled.

        `separate`: he says that the account which goes by his address or name is not his, and gets one of his own.
        """
        self._access.lock(session)  # two first sign-ins of one person at the same moment make one user
        identity = repository.lock_identity(session, issuer=provider.issuer, subject=claims["sub"])
        if identity is None:
            user = self._create_user(session, provider, claims, separate=separate)
            identity = _new_identity(session, provider, claims, user)
        else:
            locked = users_repository.lock_user(session, identity.user_id)
            if locked is None or locked.disabled:
                raise UserDisabled
            user = locked
        identity.provider, identity.email, identity.last_login_at = provider.name, _email(claims), utc_now()
        _verify_email(session, user, claims)
        self._synchronise(session, identity, user, _wanted_roles(provider, claims))
        return user

    def link(self, session: Session, provider: ProviderSettings, claims: Claims, *, user_id: str) -> ExternalIdentity:
        """Lets a user sign in with the provider from now on. Raises IdentityTaken, LinkedAlready, UserDisabled."""
        self._access.lock(session)
        identity = repository.lock_identity(session, issuer=provider.issuer, subject=claims["sub"])
        if identity is not None and identity.user_id != user_id:
            raise IdentityTaken(provider.title)
        user = users_repository.lock_user(session, user_id)
        if user is None or user.disabled:
            raise UserDisabled
        if identity is None:
            if repository.has_identity_at(session, user_id, issuer=provider.issuer):
                raise LinkedAlready(provider.title)
            identity = _new_identity(session, provider, claims, user)
            _log.info("identity linked", user_id=user_id, provider=provider.name)
        _verify_email(session, user, claims)
        self._synchronise(session, identity, user, _wanted_roles(provider, claims))
        return identity

    def list(self, session: Session, *, user_id: str) -> Sequence[ExternalIdentity]:
        """Who a user is at all providers."""
        return repository.list_identities(session, user_id)

    def unlink(self, session: Session, provider: str, *, user_id: str) -> None:
        """Ends signing in with a provider. Raises IdentityNotFound, OnlyWayIn."""
        self._access.lock(session)
        user = users_repository.lock_user(session, user_id)
        identities = repository.list_identities(session, user_id)
        identity = next((each for each in identities if each.provider == provider), None)
        if user is None or identity is None:
            raise IdentityNotFound(provider)
        if user.password_hash == NO_PASSWORD and len(identities) == 1:
            raise OnlyWayIn
        self._synchronise(session, identity, user, [])
        session.delete(identity)
        if user.identity_provider == provider:
            others = [each.provider for each in identities if each is not identity]
            user.identity_provider = others[0] if others and user.password_hash == NO_PASSWORD else ""
        _log.info("identity unlinked", user_id=user_id, provider=provider)

    def _create_user(self, session: Session, provider: ProviderSettings, claims: Claims, *, separate: bool) -> User:
        username, email = _username(provider, claims), _email(claims)
        if separate:
            username = _free_username(session, username, provider, claims)
            email = "" if users_repository.is_email_taken(session, email) else email
        elif email and repository.has_account_with_email(session, email):
            raise AccountExists(provider.title, f"the e-mail address {email}")
        elif repository.has_account_with_username(session, username):
            raise AccountExists(provider.title, f"the username {username!r}")
        new = NewUser(
            username=username,
            display_name=shown(_text(claims, "name"))[:200],
            roles=[],
            password_hash=NO_PASSWORD,
            email=email,
            email_verified=True,
            password_change_required=False,
        )
        user = self._users.create(session, new, by=None)
        user.identity_provider = provider.name
        _log.info("user created at his first sign-in", user_id=user.id, provider=provider.name)
        return user

    def _synchronise(self, session: Session, identity: ExternalIdentity, user: User, wanted: Iterable[str]) -> None:
        """Takes and gives the roles that come from the provider; those that an administrator gave stay."""
        known = self._access.roles(session)
        given = {name for name in wanted if name in known}
        others = repository.list_identities(session, user.id)
        from_others = {name for other in others if other is not identity for name in other.granted_roles}
        by_hand = set(user.roles) - set(identity.granted_roles) - from_others
        before = list(user.roles)
        try:
            with self._access.keeping_an_admin(session, user.username):
                user.roles = sorted(by_hand | from_others | given)
        except LastAdmin:
            # Nobody could undo it, so the last one stays until there is another.
            _log.warning("the last administrator keeps his role, whatever his groups say", user_id=user.id)
            given.add(ADMIN)
            user.roles = sorted({*user.roles, ADMIN})
        identity.granted_roles = sorted(given - by_hand)
        session.flush()
        if user.roles != before:
            # His other sessions too, and his keys: what the provider took away is gone everywhere within seconds.
            revoke_tokens_before(session, [user.id], utc_now())
            self._publish(session, UserChanged(user, changed_by=""))


def _new_identity(session: Session, provider: ProviderSettings, claims: Claims, user: User) -> ExternalIdentity:
    identity = ExternalIdentity(
        issuer=provider.issuer,
        subject=claims["sub"],
        user_id=user.id,
        provider=provider.name,
        email=_email(claims),
        granted_roles=[],
    )
    session.add(identity)
    session.flush()
    return identity


def _verify_email(session: Session, user: User, claims: Claims) -> None:
    """A provider of the user vouches for the address that he has here; whose address it is already, keeps it."""
    if user.email and user.email == _email(claims) and not users_repository.is_email_taken(session, user.email):
        user.set_email(user.email, verified=True)


def _wanted_roles(provider: ProviderSettings, claims: Claims) -> list[str]:
    """The roles of everybody, and of the groups that the provider names; a claim of another form names none."""
    groups = claims.get(provider.groups_claim)
    names = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    mapped = [role for name in names if isinstance(name, str) for role in provider.role_mapping.get(name, ())]
    return [*provider.default_roles, *mapped]


def _username(provider: ProviderSettings, claims: Claims) -> str:
    """A name in our form: what the provider calls him, or the first part of his address, or a made-up one."""
    for text in (_text(claims, provider.username_claim), _text(claims, "email")):
        name = re.sub(r"[^a-z0-9._-]+", "-", text.partition("@")[0].lower()).strip("._-")[:64]
        if len(name) >= 2:
            return name
    return _made_up_name(provider, claims)


def _made_up_name(provider: ProviderSettings, claims: Claims) -> str:
    made_up = hashlib.sha256(f"{provider.issuer} {claims['sub']}".encode()).hexdigest()
    return f"user-{made_up[:12]}"


def _free_username(session: Session, username: str, provider: ProviderSettings, claims: Claims) -> str:
    """The name, or one with a number behind it, or a made-up one."""
    numbered = (f"{username[:62]}-{number}" for number in range(2, 10))
    names = (username, *numbered)
    free = (name for name in names if not repository.has_account_with_username(session, name))
    return next(free, _made_up_name(provider, claims))


def _email(claims: Claims) -> str:
    """The address that the provider has checked. One that it has not is somebody's claim: here it stands for none."""
    if claims.get("email_verified") is not True:
        return ""
    email = _text(claims, "email").strip().lower()
    return email if len(email) <= 254 and "@" in email else ""


def _text(claims: Claims, name: str) -> str:
    """A claim that is a text; without what the database cannot hold."""
    value = claims.get(name)
    return "".join(character for character in value if character.isprintable()) if isinstance(value, str) else ""
