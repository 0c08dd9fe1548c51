"""Puts auth together: what the process runs, made of its settings."""

from datetime import timedelta
from functools import partial

from espalier.auth.v1 import oidc_pb2, oidc_pb2_grpc, service_pb2, service_pb2_grpc, settings_pb2, settings_pb2_grpc
from espalier_auth.access.keys.rpc import exchange_here
from espalier_auth.access.keys.service import ApiKeys
from espalier_auth.access.rights import AccessRights
from espalier_auth.access.wiring import servicers as access_servicers
from espalier_auth.audit.events import audit_consumer
from espalier_auth.audit.kept_head import KeptHead
from espalier_auth.audit.rpc import servicers as audit_servicers
from espalier_auth.events import publish
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.housekeeping import Housekeeping, KeyRotation
from espalier_auth.keys import MasterKey, SigningKeys
from espalier_auth.oidc.assembly import oidc_rpc
from espalier_auth.passwords import Passwords
from espalier_auth.preferences.rpc import SettingRpc
from espalier_auth.preferences.service import Preferences
from espalier_auth.registration.wiring import servicers as registration_servicers
from espalier_auth.roles import Roles
from espalier_auth.rpc import AuthRpc, UserRpc
from espalier_auth.service import Sessions, Users
from espalier_auth.sessions.rpc import servicers as session_servicers
from espalier_auth.sessions.service import read_revocations
from espalier_auth.settings import AuthSettings
from espalier_auth.start import prepare
from espalier_auth.throttle.devices import DeviceTokens
from espalier_auth.throttle.gate import PasswordGate
from espalier_auth.throttle.service import Throttle
from espalier_auth.tokens import AccessTokens
from espalier_auth.usage.events import usage_consumer
from espalier_auth.usage.housekeeping import UsageHousekeeping
from espalier_auth.usage.rpc import servicers as usage_servicers
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.identity import TokenVerifier
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.revocations import Revocations
from espalier_common.rpc.permissions import all_permissions
from espalier_common.rpc.server import Service

ROTATE_KEYS = "rotate-keys"


def build(settings: AuthSettings) -> Service:
    """Everything that the process of auth runs."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name="auth")
    master_key = MasterKey(settings.master_key_bytes())
    keys = SigningKeys(database, master_key, max_age=timedelta(days=settings.signing_key_days))
    roles = Roles(permission.name for permission in all_permissions())
    access = AccessRights(roles)
    passwords = Passwords(settings.password_workers)
    preferences = Preferences(settings)
    admin = FirstAdmin(settings.admin_password.get_secret_value(), settings.password_file())
    sessions, users = Sessions(preferences.session_rules), Users(access, publish)
    tokens = AccessTokens(
        keys, roles=roles, access=partial(access.now, database), secret_hashes=settings.service_secret_hashes
    )
    gate = PasswordGate(
        database,
        passwords=passwords,
        throttle=Throttle(enabled=settings.throttle),
        device_tokens=DeviceTokens(master_key.derive("device tokens")),
    )
    api_keys = ApiKeys(access)
    exchange = exchange_here(database, keys=api_keys, tokens=tokens)
    auth_rpc = AuthRpc(database, sessions=sessions, users=users, passwords=passwords, gate=gate, tokens=tokens)
    paginator = Paginator(master_key.derive("page tokens").hex())
    user_rpc = UserRpc(
        database,
        users=users,
        passwords=passwords,
        gate=gate,
        access=access,
        first_admin=admin,
        paginator=paginator,
        minimum_length=preferences.password_min_length,
    )
    kept_head = KeptHead(database, settings.home / "audit-head" if settings.home else None)
    oidc = oidc_rpc(
        settings, database, master_key=master_key, users=users, access=access, begin_session=auth_rpc.begin_session
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
            (
                oidc_pb2_grpc.add_OidcServiceServicer_to_server,
                oidc,
                oidc_pb2.DESCRIPTOR.services_by_name["OidcService"],
            ),
            *session_servicers(database),
            *registration_servicers(
                settings,
                database,
                users=users,
                access=access,
                passwords=passwords,
                throttle=gate.throttle,
                preferences=preferences,
                first_admin=admin,
                paginator=paginator,
            ),
            *access_servicers(database, access=access, keys=api_keys, exchange=exchange, paginator=paginator),
            *usage_servicers(database, paginator),
            *audit_servicers(database, kept_head=kept_head, paginator=paginator),
        ],
        verifier=TokenVerifier(
            keys.public, exchange=exchange, revocations=Revocations(partial(read_revocations, database))
        ),
        on_start=[partial(prepare, database, keys=keys, users=users, passwords=passwords, first_admin=admin)],
        background=[
            OutboxRelay(database, bus).run,
            Housekeeping(database, sessions).run,
            KeyRotation(keys).run,
            usage_consumer(bus, database).run,
            audit_consumer(bus, database).run,
            kept_head.run,
            UsageHousekeeping(database).run,
        ],
        on_stop=[passwords.close, oidc.close],
        commands={ROTATE_KEYS: partial(keys.rotate, even_if_young=True)},
    )
