"""What the planner is told of the world, so that planning itself is pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file of a dataset version, ready to be read by the ranks."""

    name: str
    split: str
    path: str
    format: str
    has_answers: bool
    accepted_rows: int


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """A dataset version that the owner of the run may use."""

    id: str
    state: str
    """VALIDATING, READY or REJECTED."""
    message: str = ""
    files: Sequence[FileFacts] = ()


@dataclass(frozen=True, kw_only=True)
class BaseRunFacts:
    """The run whose model is the base."""

    state: str
    template: str
    model_directory: str
    """Absolute; empty while the run has no finished model."""


@dataclass(frozen=True, kw_only=True)
class PlatformFacts:
    """What the platform can do."""

    ranks: int
    gpus: int
    cores: int
    templates: Sequence[str] = ()
    """Names of the chat templates."""
    model_roots: Sequence[Path] = ()
    several_nodes: bool = False
    """The launcher can spread one run over several machines."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it. A dataset version or base run that the owner may not see is missing here like one that never was."""

    platform: PlatformFacts
    datasets: dict[str, DatasetFacts] = field(default_factory=dict)
    base_run: BaseRunFacts | None = None
    base_directory: str = ""
    """The base model's directory with every link followed; empty when there is none there."""
