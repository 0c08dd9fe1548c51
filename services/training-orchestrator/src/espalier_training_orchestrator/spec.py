"""What is launched and what is seen of it, in words that no backend owns.

The planner writes a `LaunchSpec`, a launcher carries it out, and `Observation` is what the reconciler reads back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

# What both a Kubernetes name and a file name can be.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class WorkKind(StrEnum):
    """What kind of work a launch is: an attempt ends by itself, a server does not."""

    ATTEMPT = "attempt"
    SERVER = "server"


class Phase(StrEnum):
    """Where a launch stands, the same for every backend."""

    STARTING = "starting"
    """Submitted; nothing of it is seen running yet, or its health check does not pass yet."""
    RUNNING = "running"
    """An attempt at work."""
    READY = "ready"
    """A server that answers its health check."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """Ended because somebody asked for it."""

    @property
    def is_terminal(self) -> bool:
        """True when nothing of the launch runs any more and nothing of it ever will."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a launch occupies."""

    device: str
    """`cpu` or `cuda`."""
    nodes: int = 1
    processes_per_node: int = 1
    threads_per_process: int = 1

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"the device is {self.device!r}; it must be cpu or cuda")
        if min(self.nodes, self.processes_per_node, self.threads_per_process) < 1:
            raise ValueError("nodes, processes_per_node and threads_per_process must each be at least 1")

    @property
    def world_size(self) -> int:
        """Number of ranks in all."""
        return self.nodes * self.processes_per_node


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """One launch, complete: a launcher needs nothing else to carry it out."""

    name: str
    """Deterministic, `run-<run id>-a<attempt>` or the workload's name: submitting it twice starts it once."""
    kind: WorkKind
    command: tuple[str, ...]
    """Program and arguments; no shell reads them."""
    env: Mapping[str, str]
    """Added to a minimal environment (PATH, HOME, LANG, TMPDIR)."""
    directory: str
    """Absolute path of the working directory; everything about the launch lies in it."""
    files: Mapping[str, str]
    """Relative name → text, written with mode 600 before the start."""
    resources: Resources
    labels: Mapping[str, str]
    """What finds an orphan again: run, attempt, installation."""
    grace_seconds: float
    """How long an end that was asked for may take before it is forced."""
    health_path: str | None = None
    """Servers only: HTTP path that answers 200 when ready. The launcher gives the port in the variable PORT."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name: lower-case letters, digits and dashes, at most 63")
        if not self.command:
            raise ValueError(f"{self.name}: the command is empty")
        if not Path(self.directory).is_absolute():
            raise ValueError(f"{self.name}: the directory {self.directory!r} must be absolute")
        for name in self.files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name:
                raise ValueError(f"{self.name}: the file name {name!r} leads out of the directory")
        if (self.kind is WorkKind.SERVER) != (self.health_path is not None):
            raise ValueError(f"{self.name}: servers have a health path, attempts have none")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is seen of a launch at one moment."""

    phase: Phase
    exit_code: int | None = None
    """Of the runner or server; None while it runs, or when nobody saw the end."""
    reason: str = ""
    """Machine-readable, such as COMPLETED or PROCESS_DIED; empty while all is as usual."""
    message: str = ""
    """The same in a sentence for people."""
    result: Mapping[str, Any] | None = None
    """Content of `result.json` of an attempt that has ended in order."""
    base_url: str | None = None
    """Servers that are ready: `http://host:port`, without a path."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    """Of a launch that has ended: when it gave its last sign of life; None when nothing tells."""
    log_tail: tuple[str, ...] = ()
    """Last lines of the log of a launch that has ended badly."""
