"""The edge of roles and groups: proto in, use case, proto out. Commits here."""

from collections.abc import Mapping, Sequence
from typing import cast

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from espalier.auth.v1 import access_pb2, access_pb2_grpc, resources_pb2
from espalier_auth.access.errors import InvalidGroup, InvalidRole
from espalier_auth.access.explanation import Explanation, explain
from espalier_auth.access.keys.rpc import ApiKeyRpc
from espalier_auth.access.keys.service import ApiKeys
from espalier_auth.access.rights import AccessRights
from espalier_auth.access.service import CustomRoles, GroupChanges, Groups, GroupWithMembers, RoleChanges
from espalier_auth.caller import current_person
from espalier_auth.display_names import find_name_violations
from espalier_auth.faults import find_mask_violations, refuse_invalid
from espalier_auth.roles import Role
from espalier_auth.rpc import role_message
from espalier_common.api_keys import Exchange
from espalier_common.db import Database
from espalier_common.errors import FieldViolation, InvalidArgument
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Scope, current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.comments import rpc_comments
from espalier_common.rpc.permissions import all_permissions
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp

ROLE_FIELDS = ("description", "permissions", "scope")
GROUP_FIELDS = ("name", "description", "roles", "member_ids")


class RoleRpc(access_pb2_grpc.RoleServiceServicer):
    """Custom roles, and what anybody may do. `descriptions` are those of the permissions that a role may have."""

    def __init__(
        self, database: Database, *, access: AccessRights, roles: CustomRoles, descriptions: Mapping[str, str]
    ) -> None:
        self._database = database
        self._access = access
        self._roles = roles
        self._descriptions = descriptions

    def ListPermissions(
        self, request: access_pb2.ListPermissionsRequest, context: object
    ) -> access_pb2.ListPermissionsResponse:
        return access_pb2.ListPermissionsResponse(
            permissions=[
                access_pb2.Permission(name=name, description=self._descriptions.get(name, ""))
                for name in self._access.built_in.grantable()
            ]
        )

    def CreateRole(self, request: access_pb2.CreateRoleRequest, context: object) -> resources_pb2.Role:
        wanted = request.role
        if not wanted.name:
            raise InvalidRole(
                "The role needs a name.", violations=[FieldViolation("role.name", "is required", "REQUIRED")]
            )
        role = Role(wanted.name, wanted.description, tuple(wanted.permissions), _scope(wanted.scope), built_in=False)
        with self._database.transaction() as session:
            return role_message(self._roles.create(session, role, by=current_principal()))

    def UpdateRole(self, request: access_pb2.UpdateRoleRequest, context: object) -> resources_pb2.Role:
        role = request.role
        paths = _paths(request.update_mask, ROLE_FIELDS, InvalidRole)
        changes = RoleChanges(
            description=role.description if "description" in paths else None,
            permissions=list(role.permissions) if "permissions" in paths else None,
            scope=_scope(role.scope) if "scope" in paths else None,
            etag=role.etag,
        )
        with self._database.transaction() as session:
            return role_message(self._roles.update(session, role.name, changes, by=current_principal()))

    def DeleteRole(self, request: access_pb2.DeleteRoleRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._roles.delete(session, request.name, by=current_principal())
        return Empty()

    def ExplainPermissions(
        self, request: access_pb2.ExplainPermissionsRequest, context: object
    ) -> access_pb2.ExplainPermissionsResponse:
        with self._database.reading() as session:
            found = explain(
                session,
                request.user_id,
                by=current_principal(),
                access=self._access,
                permission=request.permission,
            )
        return access_pb2.ExplainPermissionsResponse(permissions=[_to_explanation(item) for item in found])


class GroupRpc(access_pb2_grpc.GroupServiceServicer):
    """Groups of users."""

    def __init__(self, database: Database, *, access: AccessRights, paginator: Paginator) -> None:
        self._database = database
        self._groups = Groups(access)
        self._paginator = paginator

    def CreateGroup(self, request: access_pb2.CreateGroupRequest, context: object) -> access_pb2.Group:
        changes = _group_changes(request.group, set(GROUP_FIELDS))
        with self._database.transaction() as session:
            return _to_group(self._groups.create(session, changes, by=current_principal()))

    def GetGroup(self, request: access_pb2.GetGroupRequest, context: object) -> access_pb2.Group:
        with self._database.reading() as session:
            return _to_group(self._groups.get(session, request.group_id, by=current_principal()))

    def ListGroups(self, request: access_pb2.ListGroupsRequest, context: object) -> access_pb2.ListGroupsResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._groups.list(session, page, by=current_principal())
        return access_pb2.ListGroupsResponse(
            groups=[_to_group(item) for item in found.items], next_page_token=found.next_page_token
        )

    def UpdateGroup(self, request: access_pb2.UpdateGroupRequest, context: object) -> access_pb2.Group:
        group = request.group
        if not is_uuid(group.id):
            found = [FieldViolation("group.id", "must be the UUID of the group", "UUID")]
            refuse_invalid(found, InvalidGroup, what="group")
        changes = _group_changes(group, _paths(request.update_mask, GROUP_FIELDS, InvalidGroup))
        with self._database.transaction() as session:
            return _to_group(self._groups.update(session, group.id, changes, by=current_principal()))

    def DeleteGroup(self, request: access_pb2.DeleteGroupRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._groups.delete(session, request.group_id, by=current_principal())
        return Empty()

    def ListPeers(self, request: access_pb2.ListPeersRequest, context: object) -> access_pb2.ListPeersResponse:
        with self._database.reading() as session:
            return access_pb2.ListPeersResponse(user_ids=self._groups.peers(session, current_person().subject))


def servicers(
    database: Database,
    *,
    access: AccessRights,
    roles_in_settings: Mapping[str, Sequence[str]],
    keys: ApiKeys,
    exchange: Exchange,
    paginator: Paginator,
) -> list[ServicerEntry]:
    """Roles, groups and API keys, for the server."""
    services = access_pb2.DESCRIPTOR.services_by_name
    api_keys = ApiKeyRpc(database, keys=keys, exchange=exchange, paginator=paginator)
    custom = CustomRoles(access, in_settings=roles_in_settings)
    roles = RoleRpc(database, access=access, roles=custom, descriptions=describe_permissions())
    groups = GroupRpc(database, access=access, paginator=paginator)
    return [
        (access_pb2_grpc.add_ApiKeyServiceServicer_to_server, api_keys, services["ApiKeyService"]),
        (access_pb2_grpc.add_RoleServiceServicer_to_server, roles, services["RoleService"]),
        (access_pb2_grpc.add_GroupServiceServicer_to_server, groups, services["GroupService"]),
    ]


def describe_permissions() -> dict[str, str]:
    """What each permission allows: the comments of its RPCs."""
    comments = rpc_comments()
    return {
        permission.name: " ".join(text for rpc in permission.rpcs if (text := comments.get(rpc)))
        for permission in all_permissions()
    }


def _paths(mask: FieldMask, known: tuple[str, ...], error: type[InvalidArgument]) -> set[str]:
    refuse_invalid(find_mask_violations(mask.paths, known), error)
    return set(mask.paths)


def _group_changes(group: access_pb2.Group, paths: set[str]) -> GroupChanges:
    members, found = list(group.member_ids), list[FieldViolation]()
    if "name" in paths:
        found += find_name_violations(group.name, field="group.name")
        if not group.name:
            found.append(FieldViolation("group.name", "is required", "REQUIRED"))
    found += [
        FieldViolation(f"group.member_ids[{index}]", "must be the UUID of a user", "UUID")
        for index, user_id in enumerate(members if "member_ids" in paths else ())
        if not is_uuid(user_id)
    ]
    refuse_invalid(found, InvalidGroup, what="group")
    return GroupChanges(
        name=group.name.strip() if "name" in paths else None,
        description=group.description if "description" in paths else None,
        roles=list(group.roles) if "roles" in paths else None,
        member_ids=members if "member_ids" in paths else None,
        etag=group.etag,
    )


def _scope(text: str) -> Scope:
    # The contract allows these three alone; the narrowest where none is named.
    return cast(Scope, text or "own")


def _to_explanation(item: Explanation) -> access_pb2.PermissionExplanation:
    return access_pb2.PermissionExplanation(
        permission=item.permission, allowed=item.scope is not None, scope=item.scope or "", sources=item.sources
    )


def _to_group(found: GroupWithMembers) -> access_pb2.Group:
    group = found.group
    return access_pb2.Group(
        id=group.id,
        name=group.name,
        description=group.description,
        roles=group.roles,
        member_ids=found.member_ids,
        create_time=timestamp(group.created_at),
        etag=found.etag,
    )
