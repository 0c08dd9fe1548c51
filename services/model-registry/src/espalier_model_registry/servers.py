"""Model servers in the registry's own words, and what the registry asks of the training orchestrator about them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

# The launchers' word for a server that was killed, as on a restart of the machine; and ours for one nobody knows.
PROCESS_DIED = "PROCESS_DIED"
SERVER_GONE = "SERVER_GONE"


class ServerState(StrEnum):
    """Where a model server stands, as the orchestrator tells it."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A model server as seen at the orchestrator; `base_url` is set while it is ready."""

    state: ServerState
    reason: str
    message: str
    base_url: str
    has_owner: bool = True
    """The orchestrator knows for whom it runs, so that its use is counted."""


class Workloads(Protocol):
    """The three calls on model servers. All may block, and raise the orchestrator's errors as `EspalierError`."""

    def launch(self, *, name: str, model_uri: str, served_name: str, device: str, owner_id: str) -> Server:
        """Makes sure that a server of this name runs; what it uses of the machine is counted as the owner's."""

    def find(self, name: str) -> Server | None:
        """The server; None when there is none of this name."""

    def remove(self, name: str) -> None:
        """Ends it; nothing happens when there is none."""
