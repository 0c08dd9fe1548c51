"""The streams of JetStream that the platform uses."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """A JetStream stream: `max_age` (0: for ever) and `duplicate_window` in seconds, `max_bytes` on disk.

    When it is full the oldest go first. One that `keeps_all` refuses new ones instead, which wait in their outbox, and
    lets one go when its consumer has applied it, or given it up.

    Where it has an `owner`, that service alone changes its settings: whoever could, could lose what others published.
    """

    name: str
    subjects: tuple[str, ...]
    max_age: float
    max_bytes: int
    duplicate_window: float = 120.0
    keeps_all: bool = False
    owner: str = ""

    def takes(self, subject: str) -> bool:
        """True when the stream stores what is published under the subject."""
        tokens = subject.split(".")
        patterns = (pattern.split(".") for pattern in self.subjects)
        return any(
            len(pattern) == len(tokens) and all(p in ("*", t) for p, t in zip(pattern, tokens, strict=True))
            for pattern in patterns
        )


EVENTS = Stream("events", ("espalier.*.*.*",), max_age=7 * 86_400, max_bytes=256 << 20, owner="auth")
"""Domain events; subject = full name of the proto message, `espalier.<service>.v1.<Message>`."""
TELEMETRY = Stream(
    "telemetry",
    ("espalier.training_orchestrator.v1.TelemetryBatch.*",),
    max_age=86_400,
    max_bytes=512 << 20,
    duplicate_window=600,
    owner="training-orchestrator",
)
"""Metrics and log lines of training runs; subject = full name of the message, a dot, the run id: one token more than
events have, so that no message is stored twice."""

AUDIT = Stream("audit", ("espalier.*.audit",), max_age=0, max_bytes=256 << 20, keeps_all=True, owner="auth")
"""What the services tell the audit log; subject = `espalier.<service>.audit`, which that service alone may publish."""

STREAMS = (EVENTS, TELEMETRY, AUDIT)

CONSUMERS = {
    "auth": ((EVENTS.name, "auth-usage"), (AUDIT.name, "auth-audit")),
    "model-registry": ((EVENTS.name, "model-registry-workloads"),),
    "training-orchestrator": ((TELEMETRY.name, "training-orchestrator-telemetry"),),
}
"""Stream and name of the durable consumers of each service; it may make and ask no other."""
