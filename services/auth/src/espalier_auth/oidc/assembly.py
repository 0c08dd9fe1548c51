"""Puts single sign-on together, of the settings and of what auth has anyway."""

from espalier_auth.access.rights import AccessRights
from espalier_auth.events import publish
from espalier_auth.keys import MasterKey
from espalier_auth.oidc.login_state import LoginStates
from espalier_auth.oidc.provider import Provider
from espalier_auth.oidc.rpc import BeginSession, OidcRpc
from espalier_auth.oidc.service import SingleSignOn
from espalier_auth.service import Users
from espalier_auth.settings import AuthSettings
from espalier_common.db import Database

# Where the console takes what a provider sends back.
CALLBACK_PATH = "/login/callback"


def oidc_rpc(
    settings: AuthSettings,
    database: Database,
    *,
    master_key: MasterKey,
    users: Users,
    access: AccessRights,
    begin_session: BeginSession,
) -> OidcRpc:
    """The servicer of single sign-on; without providers it lists none."""
    redirect_uri = f"{settings.public_url}{CALLBACK_PATH}"
    return OidcRpc(
        database,
        providers=[Provider(each, redirect_uri=redirect_uri) for each in settings.identity_providers()],
        states=LoginStates(master_key.derive("oidc states")),
        single_sign_on=SingleSignOn(users=users, access=access, publish=publish),
        begin_session=begin_session,
    )
