"""What is refused about roles, groups and API keys, one line each.

NotFound             RoleNotFound · GroupNotFound · ApiKeyNotFound
AlreadyExists        RoleTaken · GroupTaken
FailedPrecondition   RoleIsBuiltIn · RoleInUse · TooManyKeys
InvalidArgument      InvalidRole · InvalidGroup · InvalidKey
PermissionDenied     AbovePermissions
"""

from collections.abc import Sequence

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

    def __init__(self, name: str, *, users: int, groups: Sequence[str]) -> None:
        by = [f"{users} {'user' if users == 1 else 'users'}"] if users else []
        by += [f"the group {group!r}" for group in groups[:3]]
        more = f" and {len(groups) - 3} more groups" if len(groups) > 3 else ""
        super().__init__(f"The role {name!r} is in use by {', '.join(by)}{more}; take it from them first.")


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


class InvalidRole(InvalidArgument):
    reason = "INVALID_ROLE"


class InvalidGroup(InvalidArgument):
    reason = "INVALID_GROUP"


class InvalidKey(InvalidArgument):
    reason = "INVALID_API_KEY"
