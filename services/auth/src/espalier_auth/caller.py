"""Who calls, where only a person may."""

from espalier_auth.errors import ForPeopleOnly
from espalier_common.identity import Principal, current_principal


def current_person() -> Principal:
    """The signed-in user, or the API key in his name. Raises ForPeopleOnly for a service."""
    principal = current_principal()
    if principal.kind != "user":
        raise ForPeopleOnly
    return principal
