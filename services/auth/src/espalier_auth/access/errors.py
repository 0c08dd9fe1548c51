"""What is refused about roles, groups and API keys, one line each.

NotFound             RoleNotFound · GroupNotFound · ApiKeyNotFound
AlreadyExists        RoleTaken · GroupTaken
FailedPrecondition   RoleIsBuiltIn · RoleInUse · TooManyKeys
InvalidArgument      InvalidRole · InvalidGroup · InvalidKey · NoSuchPermission
PermissionDenied     AbovePermissions
"""

from collections.abc import Sequence
from dataclasses import dataclass

from espalier_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied


class RoleNotFound(NotFound):
    reason = "ROLE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__("role", name)


class GroupNotFound(NotFound):
    reason = "GROUP_NOT_FOUND"

    def __init__(self, id: str) -> None:
        super().__init__("group", id)


class ApiKeyNotFound(NotFound):
    reason = "API_KEY_NOT_FOUND"

    def __init__(self, id: str) -> None:
        super().__init__("API key", id)


class RoleTaken(AlreadyExists):
    reason = "ROLE_TAKEN"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is already a role {name!r}; choose another name.")


class GroupTaken(AlreadyExists):
    reason = "GROUP_TAKEN"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is already a group {name!r}; choose another name.")


class RoleIsBuiltIn(FailedPrecondition):
    reason = "ROLE_IS_BUILT_IN"

    def __init__(self, name: str) -> None:
        super().__init__(f"The role {name!r} is part of the platform; create a role of your own instead.")


class RoleInUse(FailedPrecondition):
    reason = "ROLE_IN_USE"

    def __init__(self, name: str, *, holders: "Holders") -> None:
        super().__init__(f"The role {name!r} is in use by {holders}; take it from them first.")


@dataclass(frozen=True, kw_only=True)
class Holders:
    """Who has a role or is promised it: users, groups, open invitations (by their e-mail address), and settings."""

    users: int
    groups: Sequence[str]
    invitations: Sequence[str]
    settings: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.users or self.groups or self.invitations or self.settings)

    def __str__(self) -> str:
        """As the part of a sentence."""
        by = [_count(self.users, "user")] if self.users else []
        by += _named([f"the group {name!r}" for name in self.groups], "group")
        by += _named(
            [f"the invitation of {email}" if email else "an open invitation" for email in self.invitations],
            "open invitation",
        )
        return ", ".join([*by, *self.settings])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _named(names: Sequence[str], noun: str) -> list[str]:
    """The first three, and how many more."""
    more = len(names) - 3
    return [*names[:3], *([f"{more} more {noun}{'s' if more > 1 else ''}"] if more > 0 else [])]


class TooManyKeys(FailedPrecondition):
    reason = "TOO_MANY_API_KEYS"

    def __init__(self, most: int) -> None:
        super().__init__(f"You have {most} API keys, the most that one user may have; delete one first.")


class AbovePermissions(PermissionDenied):
    """The caller would give a permission that he does not have himself, or not as far."""

    reason = "ABOVE_OWN_RIGHTS"

    def __init__(self, permission: str) -> None:
        super().__init__(
            permission, f"The permission {permission!r} reaches further than your own rights; ask somebody who has it."
        )


class NoSuchPermission(InvalidArgument):
    reason = "NO_SUCH_PERMISSION"


class InvalidRole(InvalidArgument):
    reason = "INVALID_ROLE"


class InvalidGroup(InvalidArgument):
    reason = "INVALID_GROUP"


class InvalidKey(InvalidArgument):
    reason = "INVALID_API_KEY"
