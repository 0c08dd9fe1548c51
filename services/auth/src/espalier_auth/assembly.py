"""Puts auth together: what the process runs, made of its settings."""

from functools import partial

from espalier.auth.v1 import service_pb2, service_pb2_grpc, settings_pb2, settings_pb2_grpc
from espalier_auth.events import publish
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.housekeeping import Housekeeping
from espalier_auth.keys import MasterKey, SigningKeys
from espalier_auth.passwords import Passwords
from espalier_auth.preferences.rpc import SettingRpc
from espalier_auth.preferences.service import Preferences
from espalier_auth.roles import Roles
from espalier_auth.rpc import AuthRpc, UserRpc
from espalier_auth.service import Sessions, Users
from espalier_auth.settings import AuthSettings
from espalier_auth.start import prepare
from espalier_auth.tokens import AccessTokens
from espalier_auth.usage.events import usage_consumer
from espalier_auth.usage.housekeeping import UsageHousekeeping
from espalier_auth.usage.rpc import servicers as usage_servicers
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.identity import TokenVerifier
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.rpc.permissions import all_permissions
from espalier_common.rpc.server import Service


def build(settings: AuthSettings) -> Service:
    """Everything that the process of auth runs."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name="auth")
    master_key = MasterKey(settings.master_key_bytes())
    keys = SigningKeys(database, master_key)
    roles = Roles(permission.name for permission in all_permissions())
    passwords = Passwords(settings.password_workers)
    preferences = Preferences(settings)
    admin = FirstAdmin(settings.admin_password.get_secret_value(), settings.password_file())
    sessions, users = Sessions(preferences.session_rules), Users(roles, publish)
    tokens = AccessTokens(keys, roles=roles, secret_hashes=settings.service_secret_hashes)
    auth_rpc = AuthRpc(database, sessions=sessions, users=users, passwords=passwords, tokens=tokens)
    paginator = Paginator(master_key.derive("page tokens").hex())
    user_rpc = UserRpc(
        database,
        users=users,
        passwords=passwords,
        roles=roles,
        first_admin=admin,
        paginator=paginator,
        minimum_length=preferences.password_min_length,
    )
    services = service_pb2.DESCRIPTOR.services_by_name
    return Service(
        name="auth",
        package="espalier_auth",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[
            (service_pb2_grpc.add_AuthServiceServicer_to_server, auth_rpc, services["AuthService"]),
            (service_pb2_grpc.add_UserServiceServicer_to_server, user_rpc, services["UserService"]),
            (
                settings_pb2_grpc.add_SettingServiceServicer_to_server,
                SettingRpc(database, preferences),
                settings_pb2.DESCRIPTOR.services_by_name["SettingService"],
            ),
            *usage_servicers(database, paginator),
        ],
        verifier=TokenVerifier(keys.public),
        on_start=[partial(prepare, database, keys=keys, users=users, passwords=passwords, first_admin=admin)],
        background=[
            OutboxRelay(database, bus).run,
            Housekeeping(database, sessions).run,
            usage_consumer(bus, database).run,
            UsageHousekeeping(database).run,
        ],
        on_stop=[passwords.close],
    )
