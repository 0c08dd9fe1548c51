"""Counters of the calls served, for Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram


class RpcMetrics:
    """Calls by RPC and status code, and how long they took. One per process and registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._calls = Counter("espalier_rpc_calls", "Calls served", ["rpc", "code"], registry=registry)
        self._seconds = Histogram("espalier_rpc_seconds", "Duration of calls in seconds", ["rpc"], registry=registry)

    def observe(self, rpc: str, code: str, seconds: float) -> None:
        """Counts one finished call."""
        self._calls.labels(rpc, code).inc()
        self._seconds.labels(rpc).observe(seconds)
