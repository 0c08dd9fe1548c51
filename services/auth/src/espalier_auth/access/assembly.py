"""The servicers of roles, groups and API keys, for the server."""

from espalier.auth.v1 import access_pb2, access_pb2_grpc
from espalier_auth.access.keys.rpc import ApiKeyRpc
from espalier_auth.access.keys.service import ApiKeys
from espalier_auth.access.rights import AccessRights
from espalier_auth.access.rpc import GroupRpc, RoleRpc
from espalier_common.api_keys import Exchange
from espalier_common.db import Database
from espalier_common.pagination import Paginator
from espalier_common.rpc.comments import rpc_comments
from espalier_common.rpc.permissions import all_permissions
from espalier_common.rpc.server import ServicerEntry


def servicers(
    database: Database, *, access: AccessRights, keys: ApiKeys, exchange: Exchange, paginator: Paginator
) -> list[ServicerEntry]:
    """All three."""
    services = access_pb2.DESCRIPTOR.services_by_name
    api_keys = ApiKeyRpc(database, keys=keys, exchange=exchange, paginator=paginator)
    roles = RoleRpc(database, access=access, descriptions=describe_permissions())
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
