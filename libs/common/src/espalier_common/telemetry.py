"""JSON logs on standard error, one event a line, and Prometheus metrics over HTTP.

The request id of the running call is in every line. Values under keys that name secrets are redacted.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from espalier_common.settings import SettingsError, split_address

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

request_id_var: ContextVar[str] = ContextVar("espalier_request_id", default="")

_SECRET_WORDS = ("password", "secret", "token", "authorization", "api_key", "apikey", "cookie", "credential")
# Counts and times of language tokens are no secrets, nor is the id of a key, nor how long a secret is or lives.
_NOT_SECRET = (
    "tokens",
    "token_count",
    "time_to_first_token",
    "page_token",
    "api_key_id",
    "password_min_length",
    "refresh_token_days",
)
_REDACTED = "[redacted]"


class Log:
    """`log.info("run started", run_id=id)`: the event is a constant text, everything variable is a field."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Any) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """As `error`, with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def _write(self, level: int, event: str, fields: dict[str, Any], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            # The event is passed as an argument so that a % in it means nothing.
            self._logger.log(level, "%s", event, exc_info=exc_info, extra={"fields": fields})


def get_logger(name: str) -> Log:
    """A logger; cheap, may be made at import."""
    return Log(logging.getLogger(name))


def configure_logging(service: str, level: str = "info") -> None:
    """Sends every log line of the process to standard error as JSON. Called once, by `run`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    # Of a line nothing tells thread, process or source, so that none of them is looked for.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # documented, for all its underscore
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("nats", "asyncio", "alembic", "httpx"):  # the last tells whole addresses, and what is secret in them
        logging.getLogger(noisy).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, event, request_id, the event's own fields, exception."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request_id := request_id_var.get():
            line["request_id"] = request_id
        line.update({key: redact(key, value) for key, value in getattr(record, "fields", {}).items()})
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")


@lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Whether what stands under this name is a secret."""
    lowered = name.lower()
    return any(word in lowered for word in _SECRET_WORDS) and not any(word in lowered for word in _NOT_SECRET)


def redact(key: str, value: Any) -> Any:
    """The value, or a mark in its place when the key names a secret; looks into mappings and lists."""
    if names_secret(key):
        return _REDACTED
    if isinstance(value, dict):
        return {str(k): redact(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(key, item) for item in value]
    return value


def serve_metrics(listen: str) -> Callable[[], None]:
    """Serves /metrics of this process at host:port in a thread; gives the function that stops it.

    An empty address serves nothing. Raises SettingsError when nothing can listen there.
    """
    if not listen:
        return lambda: None
    from prometheus_client import start_http_server

    host, port = split_address(listen)
    server: WSGIServer
    try:
        server, thread = start_http_server(port, addr=host)
    except OSError as error:
        raise SettingsError(
            f"Cannot serve metrics on {listen}: {error.strerror or error}; change ESPALIER_METRICS_LISTEN."
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)

    return stop
