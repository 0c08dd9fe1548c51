"""What somebody may do: the union over his own roles and those of his groups, each permission with its scope.

Whoever changes it (roles, groups, users) first takes the one lock of rights, so that all such changes happen one after
the other: what was checked still holds when the change is committed, and two administrators who demote each other at
the same moment do not both succeed.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

from sqlalchemy.orm import Session

from espalier_auth import repository as users
from espalier_auth.access import repository
from espalier_auth.access.models import CustomRole
from espalier_auth.errors import AboveOwnRights, InvalidUser, LastAdmin
from espalier_auth.models import User
from espalier_auth.roles import ADMIN, Rights, Role, Roles
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal, Scope

CHANGES_USERS = "auth.users.update"


@dataclass(frozen=True)
class Grant:
    """One role of a user and where he has it from, such as "group vision: role tester"."""

    role: Role
    source: str


@dataclass(frozen=True)
class CurrentAccess:
    """What a user may do at this moment."""

    rights: Rights
    role_names: list[str]


class AccessRights:
    """Who may do what, over built-in and custom roles."""

    def __init__(self, built_in: Roles) -> None:
        self.built_in = built_in

    def roles(self, session: Session) -> dict[str, Role]:
        """All roles by name, the built-in ones first."""
        custom = repository.list_custom_roles(session)
        return {role.name: role for role in (*self.built_in.all(), *map(to_role, custom))}

    def grants(self, session: Session, user: User) -> list[Grant]:
        """The user's roles, each as often as he has it. A role that is gone gives nothing."""
        roles = self.roles(session)
        named = [(name, f"role {name}") for name in user.roles]
        for group in repository.groups_of(session, user.id):
            named += [(name, f"group {group.name}: role {name}") for name in group.roles]
        return [Grant(roles[name], source) for name, source in named if name in roles]

    def of(self, session: Session, user: User) -> Rights:
        """What the user may do now."""
        return Rights.of(grant.role for grant in self.grants(session, user))

    def wait(self, session: Session) -> None:
        """Waits for all changes under way; what is read from now on holds until the transaction ends."""
        repository.wait_for_rights(session)

    def of_roles(self, session: Session, names: Iterable[str]) -> CurrentAccess:
        """What these roles give now. A role that is gone gives nothing."""
        names = set(names)
        found = [role for name in sorted(names) if (role := self.built_in.find(name))]
        if own := names.difference(role.name for role in found):
            found += [to_role(custom) for custom in repository.list_custom_roles(session) if custom.name in own]
        return CurrentAccess(Rights.of(found), sorted(role.name for role in found))

    def require_known(self, session: Session, names: Iterable[str], *, field: str) -> None:
        """Raises InvalidUser, naming every role that does not exist."""
        roles = self.roles(session)
        known = ", ".join(roles)
        unknown = [
            FieldViolation(f"{field}[{index}]", f"is no role; the roles are {known}", "UNKNOWN_ROLE")
            for index, name in enumerate(names)
            if name not in roles
        ]
        if unknown:
            raise InvalidUser(
                f"A role does not exist: {unknown[0].field} {unknown[0].description}.", violations=unknown
            )

    def require_rights_of(self, session: Session, names: Iterable[str], *, by: Principal) -> None:
        """Raises AboveOwnRights when a role reaches further than the caller's rights, by his token or by now."""
        wanted = list(names)
        if not wanted:
            return
        roles, rights = self.roles(session), self.rights_of_caller(session, by)
        for name in wanted:
            role = roles.get(name)
            if role is not None and (lacking := _lacking(role, by, rights)):
                raise AboveOwnRights(name, lacking=lacking)

    def rights_of_caller(self, session: Session, principal: Principal) -> Rights | None:
        """What the caller may do now, whatever his token still says; None for a service, which has its token alone."""
        if principal.kind == "service":
            return None
        user = users.find_user(session, principal.subject)
        return Rights({}) if user is None or user.disabled else self.of(session, user)

    def lacking(self, session: Session, role: Role, *, by: Principal) -> list[str]:
        """The permissions that the role gives and the caller himself does not have as far, by his token or by now."""
        return _lacking(role, by, self.rights_of_caller(session, by))

    def require_reach(self, session: Session, names: Iterable[str], members: Collection[str], *, by: Principal) -> None:
        """Raises AboveOwnRights when with these roles somebody would reach, in one group with these people, whom the
        caller does not reach himself.
        """
        roles = self.reaching(session, names, members, giver=by.subject)
        rights = self.rights_of_caller(session, by) if roles else None
        for role in roles:
            if lacking := _lacking(role, by, rights):
                raise AboveOwnRights(role.name, lacking=lacking)

    def require_reach_of(
        self, session: Session, holders: Collection[str], names: Collection[str], *, by: Principal
    ) -> None:
        """The same of people who hold these roles from now on, in all the groups that they are in."""
        if names:
            self.require_reach(session, names, repository.peers_of(session, *holders), by=by)

    def reaching(self, session: Session, names: Iterable[str], members: Collection[str], *, giver: str) -> list[Role]:
        """Those of the roles that reach their holder's groups, as far as whoever puts these people into one group must
        reach himself: everybody, unless he shares groups with all of them already.
        """
        roles = self.roles(session)
        found = [role for name in sorted(set(names)) if (role := roles.get(name)) and role.scope == "group"]
        if not found or {giver, *repository.peers_of(session, giver)}.issuperset(members):
            return found
        return [replace(role, scope="all") for role in found]

    def require_to_stand_for(self, session: Session, user: User, *, by: Principal) -> None:
        """Before somebody is given what lets him sign in as the user, as a link for a password does.

        Raises AboveOwnRights unless the caller himself reaches all that the user reaches, what is the user's own too.
        """
        if user.id == by.subject:
            return
        rights = self.rights_of_caller(session, by)
        for role in self._reached_as(session, user, giver=by.subject):
            if lacking := _lacking(role, by, rights):
                raise AboveOwnRights(role.name, lacking=lacking)

    def may_stand_for(self, session: Session, user: User, *, giver_id: str) -> bool:
        """Whether whoever gave such a link could give it now: his rights change, and so do those of the user."""
        giver = users.find_user(session, giver_id)
        if giver is None or giver.disabled:
            return False
        rights = self.of(session, giver)
        near = {"own": {giver.id}, "group": {giver.id, *repository.peers_of(session, giver.id)}}
        scope = rights.scope_of(CHANGES_USERS)
        if scope is None or (scope != "all" and user.id not in near[scope]):
            return False
        return user.id == giver.id or all(map(rights.covers, self._reached_as(session, user, giver=giver.id)))

    def _reached_as(self, session: Session, user: User, *, giver: str) -> list[Role]:
        """The roles of the user, as far as whoever signs in as him must reach himself."""
        near = {giver, *repository.peers_of(session, giver)}
        peers, found = {user.id, *repository.peers_of(session, user.id)}, list[Role]()
        for role in {grant.role.name: grant.role for grant in self.grants(session, user)}.values():
            whose = {"own": {user.id}, "group": peers}.get(role.scope)
            found.append(role if whose is None else replace(role, scope="group" if near.issuperset(whose) else "all"))
        return found

    def lock(self, session: Session) -> None:
        """Taken first by whoever changes rights; held until the transaction ends."""
        repository.lock_rights(session)

    @contextmanager
    def keeping_an_admin(self, session: Session, whom: str) -> Iterator[None]:
        """Around a change: raises LastAdmin, naming `whom`, when nobody who can sign in is an administrator any more.

        Where there was none before, as a first password ran out, the change took nobody away.
        """
        had_one = repository.has_active_user_with_role(session, ADMIN)
        yield
        session.flush()
        if had_one and not repository.has_active_user_with_role(session, ADMIN):
            raise LastAdmin(whom)


def _lacking(role: Role, by: Principal, rights: Rights | None) -> list[str]:
    return role.beyond(by) or (rights.lack(role) if rights is not None else [])


def to_role(custom: CustomRole) -> Role:
    """A custom role in the form of the built-in ones."""
    scope = cast(Scope, custom.scope)
    return Role(custom.name, custom.description, tuple(custom.permissions), scope, built_in=False)
