"""Whether the processes of the platform answer."""

import http.client
import json
import time
from collections.abc import Mapping

from espalier_client.errors import PlatformError
from espalier_client.local import table
from espalier_client.local.layout import Layout
from espalier_common.infra import processes


def wait_for_all(ports: Mapping[str, int], layout: Layout, *, deadline: float) -> None:
    """Waits until every service is ready. Raises PlatformError for the first that dies, or those that are late."""
    end = time.monotonic() + deadline
    waiting = [service.name for service in table.SERVICES]
    while waiting:
        for name in list(waiting):
            if not processes.is_alive(processes.read_record(layout.record_file(name))):
                raise PlatformError(_died(name, layout))
            if is_ready(name, ports[name]):
                waiting.remove(name)
        if waiting and time.monotonic() > end:
            raise PlatformError(_late(waiting, layout, deadline))
        time.sleep(0.03 if waiting else 0)


def is_ready(name: str, port: int) -> bool:
    """One look: the standard gRPC health check, or /readyz of the gateway."""
    if not processes.accepts(port):
        return False
    return _http_ready(port) if name == table.GATEWAY else _grpc_ready(port)


def _http_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _grpc_ready(port: int) -> bool:
    # While the services start: the import costs a third of a second.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _died(name: str, layout: Layout) -> str:
    return f"{name} ended while starting. The end of its log ({layout.log_file(name)}):\n{_tail(name, layout)}"


def _late(names: list[str], layout: Layout, deadline: float) -> str:
    first = names[0]
    return (
        f"Not ready after {deadline:g} s: {', '.join(names)}. The end of the log of {first} "
        f"({layout.log_file(first)}):\n{_tail(first, layout)}"
    )


def _tail(name: str, layout: Layout) -> str:
    lines = processes.tail(layout.log_file(name), 12).splitlines()
    return "\n".join(f"  {_readable(line)}" for line in lines) or "  (empty)"


def _readable(line: str) -> str:
    """A JSON log line as people read it; any other line as it is."""
    try:
        event = json.loads(line)
        text = f"{event.pop('level', '')} {event.pop('event')}".strip()
    except (ValueError, KeyError, AttributeError):
        return line
    detail = event.pop("exception", "") or event.pop("error", "")
    return f"{text}: {detail}" if detail else text
