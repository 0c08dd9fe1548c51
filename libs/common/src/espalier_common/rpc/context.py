"""What is known about the call being served: its request id and, in `espalier_common.identity`, its principal."""

import re
import secrets
from collections.abc import Iterable

from espalier_common.telemetry import request_id_var

REQUEST_ID_HEADER = "x-request-id"
AUTHORIZATION_HEADER = "authorization"

_SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def current_request_id() -> str:
    """Id of the call being served; empty outside a call."""
    return request_id_var.get()


def accept_request_id(offered: str | None) -> str:
    """The caller's request id when it is harmless in logs and headers, else a new one."""
    if offered and _SAFE_REQUEST_ID.fullmatch(offered):
        return offered
    return secrets.token_hex(8)


def header(metadata: Iterable[tuple[str, str | bytes]] | None, name: str) -> str | None:
    """First value of a text header of gRPC metadata."""
    for key, value in metadata or ():
        if key == name and isinstance(value, str):
            return value
    return None
