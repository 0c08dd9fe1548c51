"""Launchers: one Protocol, one module per backend, loaded only when it is the one in use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from espalier_training_orchestrator.spec import LaunchSpec, Observation

# Name in the settings → module whose `create(**options)` gives the launcher.
_MODULES: Mapping[str, str] = {
    "local": "espalier_training_orchestrator.launchers.local",
}


class Launcher(Protocol):
    """Starts work somewhere and tells what became of it.

    Every method may be repeated after a crash at any point, and from another process. Calls block for a moment at most.
    `directory` is the LaunchSpec's: together with the name it finds a launch again.
    """

    def plan(self, spec: LaunchSpec) -> Mapping[str, Any]:
        """The native request that `submit` would make; pure, for the dry run. Secrets in it are masked."""
        ...

    def submit(self, spec: LaunchSpec) -> None:
        """Starts it unless a launch of this name was submitted before: then nothing runs twice.

        Raises LaunchFailed when it cannot be started.
        """
        ...

    def observe(self, name: str, directory: str) -> Observation | None:
        """What is seen of it now; None when no launch of this name was ever submitted."""
        ...

    def read_log(self, name: str, directory: str, *, rank: int, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of a rank's log (-1: the runner or server) from a byte offset; empty at its end."""
        ...

    def cancel(self, name: str, directory: str, *, now: bool) -> None:
        """Asks it to end (an attempt saves first), or kills it with `now`. Says nothing about success: observe."""
        ...

    def forget(self, name: str, directory: str) -> None:
        """Releases what a launch that has ended still holds. Never deletes results."""
        ...


def open_launcher(name: str, **options: Any) -> Launcher:
    """The launcher of that name. Raises ValueError for an unknown one."""
    if name not in _MODULES:
        raise ValueError(f"there is no launcher {name!r}; choose one of {', '.join(sorted(_MODULES))}")
    return cast(Launcher, import_module(_MODULES[name]).create(**options))
