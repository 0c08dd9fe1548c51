"""Composition root: `python -m espalier_auth [serve|migrate]`."""

from functools import partial

from espalier.auth.v1 import service_pb2, service_pb2_grpc
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.housekeeping import Housekeeping
from espalier_auth.keys import MasterKey, SigningKeys
from espalier_auth.passwords import Passwords
from espalier_auth.roles import Roles
from espalier_auth.rpc import AuthRpc, UserRpc
from espalier_auth.settings import AuthSettings
from espalier_auth.start import prepare
from espalier_auth.tokens import AccessTokens
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.identity import TokenVerifier
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.rpc.permissions import all_permissions
from espalier_common.rpc.server import Service, run

_SERVICES = service_pb2.DESCRIPTOR.services_by_name


def build(settings: AuthSettings) -> Service:
    """Everything that the process of auth runs."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name="auth")
    master_key = MasterKey(settings.master_key_bytes())
    keys = SigningKeys(database, master_key)
    roles = Roles(permission.name for permission in all_permissions())
    passwords = Passwords(settings.password_workers)
    admin = FirstAdmin(settings.admin_password.get_secret_value(), settings.password_file())
    sign_in = AuthRpc(database, passwords=passwords, tokens=AccessTokens(keys, roles), settings=settings)
    paginator = Paginator(master_key.derive("page tokens").hex())
    users = UserRpc(database, passwords=passwords, roles=roles, first_admin=admin, paginator=paginator)
    return Service(
        name="auth",
        package="espalier_auth",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[
            (service_pb2_grpc.add_AuthServiceServicer_to_server, sign_in, _SERVICES["AuthService"]),
            (service_pb2_grpc.add_UserServiceServicer_to_server, users, _SERVICES["UserService"]),
        ],
        verifier=TokenVerifier(keys.public),
        on_start=[partial(prepare, database=database, keys=keys, passwords=passwords, first_admin=admin)],
        background=[OutboxRelay(database, bus).run, Housekeeping(database).run],
        on_stop=[passwords.close],
    )


if __name__ == "__main__":
    run(AuthSettings, build)
