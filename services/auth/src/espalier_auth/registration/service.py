"""How people come in: by registration, invitation, or a link for a new password. Each call is part of a transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from espalier_auth import repository as users_repository
from espalier_auth.access.repository import find_group, find_reached_group, members_of
from espalier_auth.access.rights import AccessRights
from espalier_auth.errors import InvalidUser, UserNotFound
from espalier_auth.faults import Faults
from espalier_auth.models import GroupMember, User
from espalier_auth.registration import repository
from espalier_auth.registration.errors import (
    InvalidInvitation,
    InvalidResetLink,
    InvitationNeeded,
    InvitationNotFound,
    PasswordElsewhere,
    RegistrationClosed,
)
from espalier_auth.registration.links import Links, hash_of, new_token
from espalier_auth.registration.models import Invitation, PasswordReset
from espalier_auth.service import NewUser, Users, end_all_sessions, require_free_email
from espalier_common.audit.recording import note_actor
from espalier_common.db import utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_common.settings import SettingsError
from espalier_common.visibility import reaches

INVITATION_LIVES = timedelta(days=7)
LONGEST_INVITATION = timedelta(days=90)
ADMINISTRATORS_LINK_LIVES = timedelta(hours=24)
MAILED_LINK_LIVES = timedelta(hours=1)
MAILS_AN_HOUR = 3

Mode = Callable[[Session], str]
"""Who may register now: "closed", "invitation" or "open"."""


@dataclass(frozen=True, kw_only=True)
class NewInvitation:
    """What an administrator says of an invitation; `expires_at` is None for the usual seven days."""

    email: str
    roles: Sequence[str]
    group_ids: Sequence[str]
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Newcomer:
    """Who registers."""

    username: str
    display_name: str
    email: str
    invitation_token: str


class Invitations:
    """Invitations to register."""

    def __init__(self, access: AccessRights, links: Links) -> None:
        self._access = access
        self._links = links

    def create(self, session: Session, new: NewInvitation, *, by: Principal) -> tuple[Invitation, str]:
        """The invitation and its link.

        Raises InvalidUser, EmailTaken, and AboveOwnRights: nobody gives what he does not have.
        """
        now, faults = utc_now(), Faults()
        expires_at = new.expires_at or now + INVITATION_LIVES
        with faults.collected():
            if not now < expires_at <= now + LONGEST_INVITATION:
                raise _wrong("expire_time", "must lie in the future, at most 90 days from now")
        with faults.collected():
            self._access.require_known(session, new.roles, field="invitation.roles")
        faults.refuse()
        roles = [*new.roles, *(role for id in new.group_ids for role in self._roles_of_group(session, id, by=by))]
        self._access.require_rights_of(session, roles, by=by)
        self._access.require_reach(session, roles, _members(session, new.group_ids), by=by)
        require_free_email(session, new.email)
        token, token_hash = new_token()
        invitation = Invitation(
            token_hash=token_hash,
            email=new.email,
            roles=sorted(set(new.roles)),
            group_ids=sorted(set(new.group_ids)),
            creator_id=by.subject,
            created_at=now,
            expires_at=expires_at,
        )
        link = self._links.to_register(token)
        session.add(invitation)
        session.flush()
        return invitation, link

    def list(self, session: Session, page: PageRequest, *, by: Principal) -> Page[Invitation]:
        """Those that can still be used and that the caller, or whom he reaches, made; the newest first."""
        return repository.list_open_invitations(session, utc_now(), page, by=by)

    def delete(self, session: Session, invitation_id: str, *, by: Principal) -> None:
        """Takes it back. Raises InvitationNotFound, also for one of somebody whom the caller does not reach."""
        if not repository.delete_open_invitation(session, invitation_id, utc_now(), by=by):
            raise InvitationNotFound(invitation_id)

    def _roles_of_group(self, session: Session, group_id: str, *, by: Principal) -> Sequence[str]:
        group = find_reached_group(session, group_id, by=by)
        if group is None:
            raise _wrong("group_ids", f"names {group_id!r}, which is no group")
        return group.roles


class Registration:
    """Newcomers who make an account of their own."""

    def __init__(self, users: Users, access: AccessRights, *, mode: Mode, open_roles: Sequence[str]) -> None:
        self._users = users
        self._access = access
        self.mode = mode
        self._open_roles = list(open_roles)

    def check(self, session: Session, newcomer: Newcomer) -> None:
        """Whether he may register now. Raises RegistrationClosed, InvitationNeeded, InvalidInvitation, InvalidUser."""
        mode = self.mode(session)
        if mode == "closed":
            raise RegistrationClosed
        if not newcomer.invitation_token:
            if mode != "open":
                raise InvitationNeeded
            return
        found = repository.find_open_invitation(session, hash_of(newcomer.invitation_token), utc_now())
        if found is None or not self._still_holds(session, found):
            raise InvalidInvitation
        if found.email and newcomer.email and newcomer.email != found.email:
            text = "is not the address that was invited; leave it empty to take that one"
            raise InvalidUser(f"The e-mail address {text}.", violations=[FieldViolation("email", text, "EMAIL")])

    def register(self, session: Session, newcomer: Newcomer, password_hash: str) -> User:
        """Makes the account, and uses the invitation up. Raises what `check` raises, and UsernameTaken, EmailTaken."""
        # Before it is looked whether the maker of the invitation may still give what he promised.
        self._access.lock(session)
        self.check(session, newcomer)
        invitation = None
        if newcomer.invitation_token:
            invitation = repository.use_invitation(session, hash_of(newcomer.invitation_token), utc_now())
            if invitation is None:
                raise InvalidInvitation
        new = NewUser(
            username=newcomer.username,
            display_name=newcomer.display_name,
            roles=invitation.roles if invitation else self._open_roles,
            password_hash=password_hash,
            email=(invitation.email if invitation else "") or newcomer.email,
            email_verified=bool(invitation and invitation.email),
            password_change_required=False,
        )
        user = self._users.create(session, new, by=None)
        note_actor(user.id, user.name)
        for group_id in invitation.group_ids if invitation else ():
            if find_group(session, group_id) is not None:
                session.add(GroupMember(group_id=group_id, user_id=user.id))
        session.flush()
        return user

    def _still_holds(self, session: Session, invitation: Invitation) -> bool:
        """Whoever invited may still give what he promised."""
        creator = users_repository.find_user(session, invitation.creator_id)
        if creator is None or creator.disabled:
            return False
        roles, rights = self._access.roles(session), self._access.of(session, creator)
        groups = [group for id in invitation.group_ids if (group := find_group(session, id)) is not None]
        promised = {*invitation.roles, *(name for group in groups for name in group.roles)}
        reaching = self._access.reaching(session, promised, _members(session, invitation.group_ids), giver=creator.id)
        return all(name in roles and rights.covers(roles[name]) for name in promised) and all(
            map(rights.covers, reaching)
        )


class PasswordResets:
    """Links with which a user chooses a new password."""

    def __init__(self, access: AccessRights, links: Links) -> None:
        self._access = access
        self._links = links

    def create(self, session: Session, user_id: str, *, by: Principal) -> tuple[str, datetime]:
        """A link and its end, for an administrator to hand over; former links work no more.

        Raises UserNotFound, PasswordElsewhere, and AboveOwnRights for a user with more rights than the caller.
        """
        user = users_repository.lock_user(session, user_id)
        if user is None or not reaches(user.id, by):
            raise UserNotFound(user_id)
        if user.identity_provider:
            raise PasswordElsewhere
        self._access.require_to_stand_for(session, user, by=by)
        repository.delete_resets_of(session, user.id)
        return self._add(session, user, lives=ADMINISTRATORS_LINK_LIVES, creator_id=by.subject)

    def create_by_operator(self, session: Session, username: str) -> tuple[User, str]:
        """The user and a link for whom nobody else can help.

        Raises SettingsError when he is not there or disabled, PasswordElsewhere.
        """
        found = users_repository.find_user_by_username(session, username.lower())
        user = users_repository.lock_user(session, found.id) if found else None
        if user is None:
            raise SettingsError(f"There is no user {username!r}.")
        if user.disabled:
            raise SettingsError(f"The user {username!r} is disabled; another administrator has to enable him first.")
        if user.identity_provider:
            raise PasswordElsewhere
        repository.delete_resets_of(session, user.id)
        return user, self._add(session, user, lives=ADMINISTRATORS_LINK_LIVES)[0]

    def create_to_mail(self, session: Session, login: str) -> list[tuple[str, str]]:
        """Addresses and the links to mail there; none for an unknown name, or who got three within the hour."""
        since = utc_now() - timedelta(hours=1)
        found = repository.find_users_to_mail(session, login.strip().lower())
        due = [user for user in found if repository.count_resets(session, user.id, since=since) < MAILS_AN_HOUR]
        return [(user.email, self._add(session, user, lives=MAILED_LINK_LIVES)[0]) for user in due]

    def check(self, session: Session, token: str) -> User:
        """Whose password the link sets. Raises InvalidResetLink."""
        found = repository.find_open_reset(session, hash_of(token), utc_now())
        user = users_repository.find_user(session, found.user_id) if found else None
        if user is None or not self._still_holds(session, user, found.creator_id if found else None):
            raise InvalidResetLink
        return user

    def use(self, session: Session, token: str, password_hash: str) -> User:
        """Sets the password, ends all sessions, lets no other link work. Raises InvalidResetLink."""
        self._access.wait(session)
        found = repository.find_open_reset(session, hash_of(token), utc_now())
        # The user before his link, as whoever changes him takes them: in another order two would wait in a ring.
        user = users_repository.lock_user(session, found.user_id) if found else None
        if user is None or found is None or not self._still_holds(session, user, found.creator_id):
            raise InvalidResetLink
        if not repository.use_reset(session, found.token_hash, utc_now()):
            raise InvalidResetLink
        note_actor(user.id, user.name)
        user.change_password(password_hash)
        end_all_sessions(session, user.id, reason="PASSWORD_RESET")
        repository.delete_resets_of(session, user.id)
        return user

    def _still_holds(self, session: Session, user: User, creator_id: str | None) -> bool:
        """Whether the user may choose a password here, and whoever made the link could make it now."""
        if user.disabled or user.identity_provider:
            return False
        return creator_id is None or self._access.may_stand_for(session, user, giver_id=creator_id)

    def _add(
        self, session: Session, user: User, *, lives: timedelta, creator_id: str | None = None
    ) -> tuple[str, datetime]:
        token, token_hash = new_token()
        link, now = self._links.to_reset(token), utc_now()
        session.add(
            PasswordReset(
                token_hash=token_hash,
                user_id=user.id,
                creator_id=creator_id,
                created_at=now,
                expires_at=now + lives,
            )
        )
        session.flush()
        return link, now + lives


def _members(session: Session, group_ids: Sequence[str]) -> list[str]:
    return [id for members in members_of(session, group_ids).values() for id in members]


def _wrong(field: str, text: str) -> InvalidUser:
    violation = FieldViolation(f"invitation.{field}", text, "INVALID")
    return InvalidUser(f"The invitation is not valid: {violation.field} {text}.", violations=[violation])
