"""Counters of the HTTP requests, for Prometheus. Routes are RPC names, never paths, so that their number is bounded."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram


class HttpMetrics:
    """One per process and registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "espalier_http_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "espalier_http_request_duration_seconds", "Duration of requests", ["method", "route"], registry=registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one finished request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
