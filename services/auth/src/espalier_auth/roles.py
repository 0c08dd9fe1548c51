"""The built-in roles: sets of permissions, worked out from the permissions that the platform's RPCs require.

    admin     everything, on everybody's data
    trainer   tester, and datasets, runs, models and prompts      own data
    tester    reads, chats, evaluates, uses deployments           own data
    viewer    reads                                               everybody's data
    auditor   reads who did what, who may do what, and usage      everybody's data

An RPC that is added to the contract is in the right roles at once. Nobody but an admin manages users, roles and groups.
Conversations are their owner's alone, whatever a role reaches; deployments are everybody's to use.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from espalier_common.identity import Principal, Scope

ADMIN = "admin"
_MOST_FOLDED = 1000

_REACH: dict[Scope, int] = {"own": 0, "group": 1, "all": 2}

# Never in a role but admin: the management of users, and what services alone do for each other.
_RESERVED = (
    "auth.users.*",
    "auth.groups.*",
    "auth.audit.*",
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

# The rights of who looks after the others; reads alone.
_AUDITS = (
    "auth.audit.*",
    "auth.users.get",
    "auth.users.list",
    "auth.roles.list",
    "auth.usage.list",
    "auth.statistics.get",
)

# Between services alone; in no role that people put together.
_BETWEEN_SERVICES = ("auth.revocations.*", "auth.usage.reserve", "training.workloads.*")

# What every service may do in its own name.
_OF_EVERY_SERVICE = ("auth.revocations.list",)
# What a service may do in its own name besides. Everything else it does with the token of the user who called it.
_SERVICE_PERMISSIONS = {
    "model-registry": ("training.workloads.*", "training.runs.get", "auth.usage.reserve"),
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
    built_in: bool = True

    def beyond(self, principal: Principal) -> list[str]:
        """The permissions that the role gives and the caller himself does not have, or not as far."""
        return [
            permission
            for permission in self.permissions
            if not principal.may(permission) or _REACH[principal.scope_of(permission)] < _REACH[self.scope]
        ]


@dataclass(frozen=True)
class Rights:
    """What somebody may do, and whose data he reaches with each permission. It may hold "*"."""

    reach: Mapping[str, Scope]

    @classmethod
    def of(cls, roles: Iterable[Role]) -> "Rights":
        """Several roles together: each permission with the widest scope in which some role gives it."""
        reach: dict[str, Scope] = {}
        for role in roles:
            for name in role.permissions:
                reach[name] = max(reach.get(name, "own"), role.scope, key=_REACH.__getitem__)
        return cls({"*": reach["*"]} if "*" in reach else reach)

    @property
    def permissions(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.reach)

    @property
    def scope(self) -> Scope:
        """The widest."""
        return max(self.reach.values(), key=_REACH.__getitem__, default="own")

    def scope_of(self, permission: str) -> Scope | None:
        """How far the permission reaches; None without it."""
        return self.reach.get("*") or self.reach.get(permission)

    def narrower(self) -> dict[Scope, list[str]]:
        """The permissions that reach less far than the widest scope."""
        widest, found = self.scope, dict[Scope, list[str]]()
        for name, scope in self.reach.items():
            if scope != widest:
                found.setdefault(scope, []).append(name)
        return found

    def lack(self, role: Role) -> list[str]:
        """The permissions that the role gives and these rights do not hold, or not as far."""
        found = {permission: self.scope_of(permission) for permission in role.permissions}
        return [name for name, scope in found.items() if scope is None or _REACH[scope] < _REACH[role.scope]]

    def covers(self, role: Role) -> bool:
        """Whether they hold all that the role gives, as far as it reaches."""
        return not self.lack(role)

    def only(self, permissions: Iterable[str]) -> "Rights":
        """What of them is among these permissions."""
        return Rights({name: scope for name in permissions if (scope := self.scope_of(name))})


class Roles:
    """All roles, over the names of all permissions of the platform."""

    def __init__(self, permissions: Iterable[str]) -> None:
        self._permissions = sorted(permissions)
        self._folded: dict[frozenset[str], list[str]] = {}
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
                Role(
                    "auditor",
                    "Sees who did what, who may do what, and what was used.",
                    tuple(name for name in self._permissions if _matches(name, _AUDITS)),
                    "all",
                ),
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
        return Rights.of(role for name in names if (role := self._roles.get(name)))

    def grantable(self) -> list[str]:
        """The permissions that a role may have: all but those between services."""
        return [name for name in self._permissions if not _matches(name, _BETWEEN_SERVICES)]

    def folded(self, permissions: Iterable[str]) -> list[str]:
        """The same permissions in fewer words, for a token: `training.runs.*` where all of these are among them."""
        given = frozenset(permissions)
        if (known := self._folded.get(given)) is None:
            # There are about as many sets as roles; whoever makes roles all day costs the others their memory of them.
            if len(self._folded) >= _MOST_FOLDED:
                self._folded.clear()
            known = self._folded[given] = self._fold(given)
        return list(known)

    def _fold(self, given: frozenset[str]) -> list[str]:
        folded = {name for name in given if name not in self._permissions}
        for prefix, family in groupby(self._permissions, key=lambda name: name.rpartition(".")[0]):
            names = list(family)
            whole = len(names) > 1 and all(name in given for name in self._permissions if name.startswith(f"{prefix}."))
            folded |= {f"{prefix}.*"} if whole else given.intersection(names)
        return sorted(folded)

    def service_rights(self, service: str) -> Rights:
        """What a service may do in its own name."""
        patterns = (*_OF_EVERY_SERVICE, *_SERVICE_PERMISSIONS.get(service, ()))
        return Rights({name: "all" for name in self._permissions if _matches(name, patterns)})


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
