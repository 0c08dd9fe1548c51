"""The built-in roles: sets of permissions, worked out from the permissions that the platform's RPCs require.

    admin     everything, on everybody's data
    trainer   tester, and datasets, runs, models and prompts      own data
    tester    reads, chats, evaluates, uses deployments           own data
    viewer    reads                                               everybody's data

An RPC that is added to the contract is in the right roles at once. Nobody but an admin manages users.
Conversations are their owner's alone, whatever a role reaches; deployments are everybody's to use.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from espalier_common.identity import Principal, Scope

ADMIN = "admin"

_REACH: dict[Scope, int] = {"own": 0, "group": 1, "all": 2}

# Never in a role but admin: the management of users, and what services alone do for each other.
_RESERVED = (
    "auth.users.*",
    "auth.invitations.*",
    "auth.revocations.*",
    "auth.settings.*",
    "auth.banners.*",
    "auth.usage.*",
    "auth.quotas.*",
    "auth.statistics.*",
    "training.workloads.*",
)
_READS = ("*.get", "*.list")
_TESTS = (*_READS, "chat.*", "eval.*", "models.deployments.use")
_TRAINS = (*_TESTS, "training.datasets.*", "training.runs.*", "models.*", "prompt.*")

# What every service may do in its own name.
_OF_EVERY_SERVICE = ("auth.revocations.list",)
# What a service may do in its own name besides. Everything else it does with the token of the user who called it.
_SERVICE_PERMISSIONS = {
    "model-registry": ("training.workloads.*", "training.runs.get"),
    "chat": ("models.deployments.use", "auth.usage.reserve"),
    "training-orchestrator": ("auth.usage.reserve",),
}


@dataclass(frozen=True)
class Role:
    """A named set of permissions; `scope` says whose data they reach."""

    name: str
    description: str
    permissions: tuple[str, ...]
    scope: Scope

    def is_within(self, principal: Principal) -> bool:
        """Whether the caller himself has all that the role gives."""
        enough = all(principal.may(permission) for permission in self.permissions)
        return enough and _REACH[principal.scope] >= _REACH[self.scope]


@dataclass(frozen=True)
class Rights:
    """What somebody may do. `permissions` may hold "*"."""

    permissions: frozenset[str]
    scope: Scope


class Roles:
    """All roles, over the names of all permissions of the platform."""

    def __init__(self, permissions: Iterable[str]) -> None:
        self._permissions = sorted(permissions)
        open_names = [name for name in self._permissions if not _matches(name, _RESERVED)]

        def those(patterns: Iterable[str]) -> tuple[str, ...]:
            return tuple(name for name in open_names if _matches(name, patterns))

        self._roles = {
            role.name: role
            for role in (
                Role(ADMIN, "Does everything, and manages users.", ("*",), "all"),
                Role("trainer", "Trains, registers, deploys and tests models.", those(_TRAINS), "own"),
                Role("tester", "Chats with models and evaluates their answers.", those(_TESTS), "own"),
                Role("viewer", "Sees everything but others' conversations, changes nothing.", those(_READS), "all"),
            )
        }

    def all(self) -> list[Role]:
        """The roles, the most powerful first."""
        return list(self._roles.values())

    def find(self, name: str) -> Role | None:
        """The role of this name."""
        return self._roles.get(name)

    def rights(self, names: Iterable[str]) -> Rights:
        """All roles together: the union of permissions, the widest scope. Unknown names give nothing."""
        roles = [role for name in names if (role := self._roles.get(name))]
        permissions = frozenset(name for role in roles for name in role.permissions)
        scope: Scope = max((role.scope for role in roles), key=_REACH.__getitem__, default="own")
        return Rights(frozenset({"*"}) if "*" in permissions else permissions, scope)

    def service_rights(self, service: str) -> Rights:
        """What a service may do in its own name."""
        patterns = (*_OF_EVERY_SERVICE, *_SERVICE_PERMISSIONS.get(service, ()))
        granted = frozenset(name for name in self._permissions if _matches(name, patterns))
        return Rights(granted, "all")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
