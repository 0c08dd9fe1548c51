"""Registration, put together."""

from functools import partial

from espalier_auth.access.rights import AccessRights
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.passwords import Passwords
from espalier_auth.preferences.registry import REGISTRATION
from espalier_auth.preferences.service import Preferences
from espalier_auth.registration.links import Links
from espalier_auth.registration.mail import Mailer
from espalier_auth.registration.rpc import Parts, RegistrationRpc
from espalier_auth.registration.service import Invitations, PasswordResets, Registration
from espalier_auth.service import Users
from espalier_auth.settings import AuthSettings
from espalier_auth.throttle.service import Throttle
from espalier_common.db import Database
from espalier_common.pagination import Paginator


def registration_rpc(
    settings: AuthSettings,
    database: Database,
    *,
    users: Users,
    access: AccessRights,
    passwords: Passwords,
    throttle: Throttle,
    preferences: Preferences,
    first_admin: FirstAdmin,
    paginator: Paginator,
) -> RegistrationRpc:
    """The servicer of RegistrationService, with all it stands on."""
    links = Links(settings.public_url)
    parts = Parts(
        registration=Registration(
            users,
            access,
            mode=partial(preferences.text, name=REGISTRATION),
            open_roles=settings.registration_roles,
        ),
        invitations=Invitations(access, links),
        resets=PasswordResets(access, links),
        passwords=passwords,
        throttle=throttle,
        mailer=Mailer(settings),
        first_admin=first_admin,
        paginator=paginator,
        minimum_length=preferences.password_min_length,
    )
    return RegistrationRpc(database, parts)
