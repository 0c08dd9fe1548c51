"""Puts auth together: what the process runs, made of its settings."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from espalier_auth.access.keys.rpc import exchange_here
from espalier_auth.access.keys.service import ApiKeys
from espalier_auth.access.rights import AccessRights
from espalier_auth.access.rpc import servicers as access_servicers
from espalier_auth.access.service import read_peers
from espalier_auth.audit.events import audit_consumer
from espalier_auth.audit.kept_head import KeptHead
from espalier_auth.audit.rpc import servicers as audit_servicers
from espalier_auth.events import publish
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.housekeeping import Housekeeping, KeyRotation
from espalier_auth.keys import MasterKey, Sealer, SigningKeys
from espalier_auth.memory import keep_memory
from espalier_auth.oidc.assembly import oidc_rpc
from espalier_auth.oidc.rpc import OidcRpc
from espalier_auth.oidc.rpc import servicers as oidc_servicers
from espalier_auth.passwords import Passwords
from espalier_auth.preferences.rpc import servicers as setting_servicers
from espalier_auth.preferences.service import Preferences
from espalier_auth.registration.assembly import registration_rpc
from espalier_auth.registration.links import Links
from espalier_auth.registration.repository import delete_resets_of
from espalier_auth.registration.rpc import RegistrationRpc
from espalier_auth.registration.rpc import servicers as registration_servicers
from espalier_auth.registration.service import PasswordResets
from espalier_auth.rescue import remove_second_factor, reset_password
from espalier_auth.roles import Roles
from espalier_auth.rpc import UserRpc
from espalier_auth.rpc import servicers as user_servicers
from espalier_auth.second_factor.rpc import SecondFactorRpc
from espalier_auth.second_factor.rpc import servicers as second_factor_servicers
from espalier_auth.second_factor.service import SecondFactors, issuer_of
from espalier_auth.service import Sessions, Users
from espalier_auth.sessions.rpc import servicers as session_servicers
from espalier_auth.sessions.service import read_revocations
from espalier_auth.settings import AuthSettings
from espalier_auth.sign_in.rpc import AuthRpc
from espalier_auth.sign_in.rpc import servicers as sign_in_servicers
from espalier_auth.start import prepare, rotate_master_key
from espalier_auth.throttle.devices import DeviceTokens
from espalier_auth.throttle.gate import PasswordGate
from espalier_auth.throttle.service import Throttle
from espalier_auth.tokens import AccessTokens
from espalier_auth.usage.events import usage_consumer
from espalier_auth.usage.housekeeping import UsageHousekeeping
from espalier_auth.usage.rpc import servicers as usage_servicers
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.group_peers import GroupPeers
from espalier_common.identity import TokenVerifier
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.revocations import Revocations
from espalier_common.rpc.permissions import all_permissions
from espalier_common.rpc.server import Background, Service

ROTATE_KEYS = "rotate-keys"
ROTATE_MASTER_KEY = "rotate-master-key"
REMOVE_SECOND_FACTOR = "remove-second-factor"
RESET_PASSWORD = "reset-password"  # noqa: S105  (the name of a command)
COMMANDS = (ROTATE_KEYS, ROTATE_MASTER_KEY, REMOVE_SECOND_FACTOR, RESET_PASSWORD)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What several parts of auth share."""

    settings: AuthSettings
    database: Database
    bus: Bus
    master_key: MasterKey
    keys: SigningKeys
    access: AccessRights
    passwords: Passwords
    preferences: Preferences
    first_admin: FirstAdmin
    sessions: Sessions
    users: Users
    tokens: AccessTokens
    gate: PasswordGate
    second_factors: SecondFactors
    paginator: Paginator


def build(settings: AuthSettings) -> Service:
    """Everything that the process of auth runs."""
    parts = _make_parts(settings)
    keep_memory(checks=parts.passwords.width)
    database, bus, keys = parts.database, parts.bus, parts.keys
    api_keys = ApiKeys(parts.access)
    exchange = exchange_here(database, keys=api_keys, tokens=parts.tokens)
    auth_rpc = _auth_rpc(parts)
    kept_head = KeptHead(database, settings.home / "audit-head" if settings.home else None)
    oidc = _oidc_rpc(parts, auth_rpc)
    registration = _registration_rpc(parts)
    return Service(
        name="auth",
        package="espalier_auth",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[
            *sign_in_servicers(auth_rpc),
            *user_servicers(_user_rpc(parts)),
            *second_factor_servicers(SecondFactorRpc(database, second_factors=parts.second_factors, gate=parts.gate)),
            *setting_servicers(database, parts.preferences),
            *oidc_servicers(oidc),
            *session_servicers(database, parts.users),
            *registration_servicers(registration),
            *access_servicers(
                database,
                access=parts.access,
                roles_in_settings=settings.roles_named(),
                keys=api_keys,
                exchange=exchange,
                paginator=parts.paginator,
            ),
            *usage_servicers(database, parts.paginator),
            *audit_servicers(database, kept_head=kept_head, paginator=parts.paginator),
        ],
        verifier=TokenVerifier(
            keys.public, exchange=exchange, revocations=Revocations(partial(read_revocations, database))
        ),
        peers=GroupPeers(partial(read_peers, database)),
        on_start=[_start_of(parts)],
        background=[
            OutboxRelay(database, bus).run,
            Housekeeping(database, parts.sessions).run,
            KeyRotation(keys).run,
            usage_consumer(bus, database).run,
            audit_consumer(bus, database, kept_head).run,
            kept_head.run,
            UsageHousekeeping(database).run,
            *_forwarders(settings, database),
        ],
        on_stop=[parts.passwords.close, oidc.close, registration.close],
        commands={
            ROTATE_KEYS: partial(keys.rotate, even_if_young=True),
            ROTATE_MASTER_KEY: partial(rotate_master_key, keys, parts.second_factors.reseal),
            REMOVE_SECOND_FACTOR: partial(remove_second_factor, database, parts.second_factors),
            RESET_PASSWORD: partial(reset_password, database, PasswordResets(parts.access, Links(settings.public_url))),
        },
    )


def _make_parts(settings: AuthSettings) -> _Parts:
    # As many as work at once: sign-ins, other calls, the relay and the consumers.
    database = Database(settings.database_url, pool_size=10)
    master_key = MasterKey(settings.master_key_bytes())
    former_bytes = settings.former_master_key_bytes()
    former = MasterKey(former_bytes) if former_bytes else None
    keys = SigningKeys(
        database,
        master_key,
        former=former,
        max_age=timedelta(days=settings.signing_key_days),
    )
    roles = Roles(permission.name for permission in all_permissions())
    access = AccessRights(roles)
    passwords = Passwords(settings.password_workers)
    preferences = Preferences(settings)
    return _Parts(
        settings=settings,
        database=database,
        bus=Bus(settings.nats_url, name="auth"),
        master_key=master_key,
        keys=keys,
        access=access,
        passwords=passwords,
        preferences=preferences,
        first_admin=FirstAdmin(settings.admin_password.get_secret_value(), settings.password_file()),
        sessions=Sessions(preferences.session_rules, access),
        users=Users(access, publish),
        tokens=AccessTokens(keys, roles=roles, secret_hashes=settings.service_secret_hashes),
        gate=PasswordGate(
            database,
            passwords=passwords,
            throttle=Throttle(enabled=settings.throttle),
            device_tokens=DeviceTokens(master_key.derive("device tokens")),
        ),
        second_factors=SecondFactors(
            Sealer(master_key, former=former, purpose="second factors"),
            access,
            issuer=issuer_of(settings.public_url),
            is_required=preferences.needs_second_factor,
        ),
        paginator=Paginator(master_key.derive("page tokens").hex()),
    )


def _forwarders(settings: AuthSettings, database: Database) -> list[Background]:
    address = settings.audit_address()
    if address is None:
        return []
    from espalier_auth.audit.forwarder import Forwarder, ForwardingMetrics

    metrics = ForwardingMetrics() if settings.metrics_listen else None
    return [Forwarder(database, address.open(), name=address.name, metrics=metrics).run]


def _auth_rpc(parts: _Parts) -> AuthRpc:
    return AuthRpc(
        parts.database,
        sessions=parts.sessions,
        passwords=parts.passwords,
        gate=parts.gate,
        tokens=parts.tokens,
        second_factors=parts.second_factors,
    )


def _user_rpc(parts: _Parts) -> UserRpc:
    return UserRpc(
        parts.database,
        users=parts.users,
        passwords=parts.passwords,
        gate=parts.gate,
        access=parts.access,
        first_admin=parts.first_admin,
        paginator=parts.paginator,
        minimum_length=parts.preferences.password_min_length,
        forget_links=delete_resets_of,
    )


def _oidc_rpc(parts: _Parts, auth_rpc: AuthRpc) -> OidcRpc:
    return oidc_rpc(
        parts.settings,
        parts.database,
        master_key=parts.master_key,
        users=parts.users,
        access=parts.access,
        begin_session=auth_rpc.begin_session,
    )


def _registration_rpc(parts: _Parts) -> RegistrationRpc:
    return registration_rpc(
        parts.settings,
        parts.database,
        users=parts.users,
        access=parts.access,
        passwords=parts.passwords,
        throttle=parts.gate.throttle,
        preferences=parts.preferences,
        first_admin=parts.first_admin,
        paginator=parts.paginator,
    )


def _start_of(parts: _Parts) -> Callable[[], None]:
    return partial(
        prepare,
        parts.database,
        keys=parts.keys,
        also_sealed=parts.second_factors.reseal,
        users=parts.users,
        passwords=parts.passwords,
        first_admin=parts.first_admin,
    )
