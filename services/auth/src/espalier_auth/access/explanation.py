"""What a user may do, and why: every permission with its scope and the roles it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from espalier_auth import repository as users
from espalier_auth.access.errors import NoSuchPermission
from espalier_auth.access.rights import AccessRights, Grant
from espalier_auth.errors import UserNotFound
from espalier_auth.roles import Rights
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal, Scope
from espalier_common.visibility import reaches

DISABLED = "the account is disabled"


@dataclass(frozen=True)
class Explanation:
    """One permission of a user; without a scope he has it not."""

    permission: str
    scope: Scope | None
    sources: Sequence[str]


def explain(
    session: Session, user_id: str, *, by: Principal, access: AccessRights, permission: str = ""
) -> list[Explanation]:
    """What this user may do, by name of the permission; only this permission when one is named.

    Raises UserNotFound, also for a user whom the caller does not reach, and NoSuchPermission.
    A disabled user may do nothing, whatever roles he has.
    """
    user = users.find_user(session, user_id)
    if user is None or not reaches(user.id, by):
        raise UserNotFound(user_id)
    known = access.built_in.grantable()
    if permission and permission not in known:
        wrong = FieldViolation("permission", "is no permission that a user can have", "NO_SUCH_PERMISSION")
        raise NoSuchPermission(f"There is no permission {permission!r}.", violations=[wrong])
    names = [permission] if permission else known
    if user.disabled:
        return [Explanation(name, None, [DISABLED]) for name in names]
    grants = access.grants(session, user)
    rights = Rights.of(grant.role for grant in grants)
    return [Explanation(name, rights.scope_of(name), _sources(grants, name)) for name in names]


def _sources(grants: Sequence[Grant], permission: str) -> list[str]:
    return [grant.source for grant in grants if permission in grant.role.permissions or "*" in grant.role.permissions]
