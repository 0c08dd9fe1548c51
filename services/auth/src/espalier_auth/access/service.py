"""What administrators do with roles and groups. Each call is part of the caller's transaction.

Every change here takes the lock of rights first (see `rights.py`), gives nothing above the caller's own rights, leaves
an administrator, and takes back the access tokens of whom it concerns, so that it holds everywhere within seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_auth.access import repository
from espalier_auth.access.errors import (
    AbovePermissions,
    GroupNotFound,
    GroupTaken,
    Holders,
    InvalidGroup,
    InvalidRole,
    RoleInUse,
    RoleIsBuiltIn,
    RoleNotFound,
    RoleTaken,
)
from espalier_auth.access.models import CustomRole, Group
from espalier_auth.access.rights import AccessRights, to_role
from espalier_auth.etags import etag_of, require_unchanged, role_etag
from espalier_auth.faults import refuse_invalid
from espalier_auth.models import GroupMember
from espalier_auth.registration.repository import open_invitations_with_role
from espalier_auth.roles import Rights, Role
from espalier_auth.sessions.repository import revoke_tokens_before
from espalier_common.audit.recording import note_before
from espalier_common.db import Database, utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal, Scope
from espalier_common.pagination import Page, PageRequest


@dataclass(frozen=True, kw_only=True)
class RoleChanges:
    """New values; None leaves a field as it is."""

    description: str | None = None
    permissions: list[str] | None = None
    scope: Scope | None = None
    # That of the role as the caller saw it; empty: whatever it is now.
    etag: str = ""


class CustomRoles:
    """Roles that administrators put together."""

    def __init__(self, access: AccessRights, *, in_settings: Mapping[str, Sequence[str]]) -> None:
        """`in_settings`: where the settings of the platform name roles, by role."""
        self._access = access
        self._in_settings = in_settings

    def create(self, session: Session, role: Role, *, by: Principal) -> Role:
        """Adds a role. Raises RoleTaken, InvalidRole, AbovePermissions."""
        self._access.lock(session)
        if role.name in self._access.roles(session):
            raise RoleTaken(role.name)
        self._require_grantable(role.permissions)
        self._require_own(session, role, by=by)
        custom = CustomRole(
            name=role.name,
            description=role.description,
            permissions=sorted(set(role.permissions)),
            scope=role.scope,
        )
        session.add(custom)
        session.flush()
        return to_role(custom)

    def update(self, session: Session, name: str, changes: RoleChanges, *, by: Principal) -> Role:
        """Changes a role and with it what all who have it may do.

        Raises RoleNotFound, RoleIsBuiltIn, ChangedMeanwhile, InvalidRole, AbovePermissions, AboveOwnRights.
        """
        custom = self._lock(session, name)
        before = to_role(custom)
        require_unchanged(changes.etag, role_etag(before), what=f"the role {name}")
        self._require_own(session, before, by=by)
        if changes.permissions is not None:
            self._require_grantable(changes.permissions)
            custom.permissions = sorted(set(changes.permissions))
        if changes.scope is not None:
            custom.scope = changes.scope
        if changes.description is not None:
            custom.description = changes.description
        self._require_own(session, to_role(custom), by=by)
        session.flush()
        if changes.permissions is not None or changes.scope is not None:
            holders = repository.users_with_role(session, name)
            if not Rights.of([before]).covers(to_role(custom)):
                self._access.require_reach_of(session, holders, [name], by=by)
            take_back(session, holders)
        return to_role(custom)

    def delete(self, session: Session, name: str, *, by: Principal) -> None:
        """Deletes a role. Raises RoleNotFound, RoleIsBuiltIn, RoleInUse, AbovePermissions."""
        custom = self._lock(session, name)
        self._require_own(session, to_role(custom), by=by)
        holders = Holders(
            users=len(repository.users_with_role(session, name)),
            groups=[group.name for group in repository.groups_with_role(session, name)],
            invitations=open_invitations_with_role(session, name, utc_now()),
            settings=self._in_settings.get(name, ()),
        )
        if holders:
            raise RoleInUse(name, holders=holders)
        session.delete(custom)

    def _lock(self, session: Session, name: str) -> CustomRole:
        self._access.lock(session)
        if self._access.built_in.find(name) is not None:
            raise RoleIsBuiltIn(name)
        custom = repository.find_custom_role(session, name)
        if custom is None:
            raise RoleNotFound(name)
        return custom

    def _require_grantable(self, permissions: Iterable[str]) -> None:
        known = set(self._access.built_in.grantable())
        unknown = [
            FieldViolation(
                f"role.permissions[{index}]",
                f"{permission!r} is no permission that a role may have; see the list of permissions",
                "UNKNOWN_PERMISSION",
            )
            for index, permission in enumerate(permissions)
            if permission not in known
        ]
        refuse_invalid(unknown, InvalidRole, what="role")

    def _require_own(self, session: Session, role: Role, *, by: Principal) -> None:
        if lacking := self._access.lacking(session, role, by=by):
            raise AbovePermissions(lacking[0])


@dataclass(frozen=True, kw_only=True)
class GroupChanges:
    """New values; None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    roles: list[str] | None = None
    member_ids: list[str] | None = None
    # That of the group as the caller saw it; empty: whatever it is now.
    etag: str = ""


@dataclass(frozen=True)
class GroupWithMembers:
    """A group and the ids of its members."""

    group: Group
    member_ids: Sequence[str] = field(default_factory=list)

    @property
    def etag(self) -> str:
        """The mark of what may be changed of it."""
        return etag_of(self.group.name, self.group.description, self.group.roles, self.member_ids)


class Groups:
    """Groups of users."""

    def __init__(self, access: AccessRights) -> None:
        self._access = access

    def get(self, session: Session, group_id: str, *, by: Principal) -> GroupWithMembers:
        """The group. Raises GroupNotFound."""
        return self._with_members(session, self._find(session, group_id, by=by))

    def list(self, session: Session, page: PageRequest, *, by: Principal) -> Page[GroupWithMembers]:
        """Groups by name: all, or the caller's, as his scope says."""
        found = repository.list_groups(session, page, of="" if by.scope == "all" else by.subject)
        members = repository.members_of(session, [group.id for group in found.items])
        return Page([GroupWithMembers(group, members[group.id]) for group in found.items], found.next_page_token)

    def peers(self, session: Session, user_id: str) -> Sequence[str]:
        """Ids of all users in the groups of a user."""
        return repository.peers_of(session, user_id)

    def create(self, session: Session, changes: GroupChanges, *, by: Principal) -> GroupWithMembers:
        """Adds a group. Raises GroupTaken, InvalidGroup, InvalidUser, AboveOwnRights."""
        self._access.lock(session)
        self._require_reach(session, changes.roles or [], changes.member_ids or [], by=by)
        group = Group(name="", roles=[])
        self._apply(session, group, changes, by=by)
        session.add(group)
        self._flush(session, group.name)
        self._set_members(session, group, changes.member_ids or [])
        return self._with_members(session, group)

    def update(self, session: Session, group_id: str, changes: GroupChanges, *, by: Principal) -> GroupWithMembers:
        """Changes a group, and with its roles and members what they may do.

        Raises GroupNotFound, ChangedMeanwhile, GroupTaken, InvalidGroup, InvalidUser, AboveOwnRights, LastAdmin.
        """
        self._access.lock(session)
        group = self._find(session, group_id, by=by)
        found = self._with_members(session, group)
        require_unchanged(changes.etag, found.etag, what=f"the group {group.name}")
        self._access.require_rights_of(session, group.roles, by=by)
        present = found.member_ids
        members = present if changes.member_ids is None else changes.member_ids
        roles = group.roles if changes.roles is None else changes.roles
        if not (set(members) <= set(present) and set(roles) <= set(group.roles)):
            self._require_reach(session, roles, members, by=by)
        with self._access.keeping_an_admin(session, f"A member of the group {group.name}"):
            self._apply(session, group, changes, by=by)
            self._flush(session, group.name)
            if changes.member_ids is not None:
                self._set_members(session, group, changes.member_ids)
            if changes.roles is not None:
                take_back(session, repository.members_of(session, [group.id])[group.id])
        return self._with_members(session, group)

    def delete(self, session: Session, group_id: str, *, by: Principal) -> None:
        """Deletes a group; its members stay, without its roles. Raises GroupNotFound, AboveOwnRights, LastAdmin."""
        self._access.lock(session)
        group = self._find(session, group_id, by=by)
        self._access.require_rights_of(session, group.roles, by=by)
        members = repository.members_of(session, [group.id])[group.id]
        take_back(session, members)
        note_before({f"groups/{group.id}/members": members})  # they go with it, unseen by the ORM
        with self._access.keeping_an_admin(session, f"A member of the group {group.name}"):
            session.delete(group)

    def _find(self, session: Session, group_id: str, *, by: Principal) -> Group:
        group = repository.find_reached_group(session, group_id, by=by)
        if group is None:
            raise GroupNotFound(group_id)
        return group

    def _require_reach(self, session: Session, roles: Sequence[str], members: Sequence[str], *, by: Principal) -> None:
        """Whoever shares a group is reached with every role of scope group that a member holds."""
        held = repository.roles_held_by(session, members)
        self._access.require_reach(session, {*roles, *held}, members, by=by)

    def _with_members(self, session: Session, group: Group) -> GroupWithMembers:
        return GroupWithMembers(group, repository.members_of(session, [group.id])[group.id])

    def _apply(self, session: Session, group: Group, changes: GroupChanges, *, by: Principal) -> None:
        if changes.name is not None:
            group.name = changes.name
        if changes.description is not None:
            group.description = changes.description
        if changes.roles is not None:
            self._access.require_known(session, changes.roles, field="group.roles")
            self._access.require_rights_of(session, changes.roles, by=by)
            group.roles = sorted(set(changes.roles))

    def _flush(self, session: Session, name: str) -> None:
        try:
            session.flush()
        except IntegrityError as error:
            raise GroupTaken(name) from error

    def _set_members(self, session: Session, group: Group, member_ids: Sequence[str]) -> None:
        wanted = set(member_ids)
        known = repository.known_users(session, wanted)
        unknown = [
            FieldViolation(f"group.member_ids[{index}]", "is the id of no user", "UNKNOWN_USER")
            for index, user_id in enumerate(member_ids)
            if user_id not in known
        ]
        refuse_invalid(unknown, InvalidGroup, what="group")
        present = set(repository.members_of(session, [group.id])[group.id])
        repository.remove_members(session, group.id, present - wanted)
        session.add_all(GroupMember(group_id=group.id, user_id=user_id) for user_id in sorted(wanted - present))
        session.flush()
        take_back(session, present ^ wanted)


def take_back(session: Session, user_ids: Iterable[str]) -> None:
    """Ends the access tokens of these users; their sessions go on with what they may do now."""
    revoke_tokens_before(session, user_ids, utc_now())


def read_peers(database: Database, principal: Principal) -> Sequence[str]:
    """As `GroupPeers` wants them: for auth itself, which needs nobody to ask."""
    with database.reading() as session:
        return repository.peers_of(session, principal.subject)
