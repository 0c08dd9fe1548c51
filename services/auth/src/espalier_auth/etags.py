"""Short marks of a state: who sends one back with a change does not undo what somebody else changed meanwhile."""

import hashlib
import json
from collections.abc import Sequence

from espalier_auth.errors import ChangedMeanwhile
from espalier_auth.models import User
from espalier_auth.roles import Role
from espalier_auth.usage.models import Quota

Value = str | bool | Sequence[str]


def etag_of(*values: Value) -> str:
    """The mark of these values; lists of names count as sets."""
    plain = [value if isinstance(value, str | bool) else sorted(value) for value in values]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:32]


def user_etag(user: User) -> str:
    """The mark of what an administrator may change of a user."""
    return etag_of(user.display_name, user.email, user.roles, user.disabled)


def role_etag(role: Role) -> str:
    """The mark of what an administrator may change of a role."""
    return etag_of(role.description, role.permissions, role.scope)


def quota_etag(quota: Quota) -> str:
    """The mark of what an administrator may change of a limit."""
    return etag_of(repr(quota.amount), quota.time_zone)


def require_unchanged(given: str, now: str, *, what: str) -> None:
    """Raises ChangedMeanwhile when a mark was given and it is not the one of now."""
    if given and given != now:
        raise ChangedMeanwhile(what)
