"""The import of nats-py, which costs more and breaks more easily than an import should."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client


def client_type() -> "type[Client]":
    """nats-py's client, imported without aiohttp, which it wants for websockets alone: 8 MB and 0.13 s per service.

    By one thread alone: its modules import each other in a circle, which two that enter it both leave in pieces.
    """
    absent = "aiohttp" not in sys.modules
    if absent:
        sys.modules["aiohttp"] = None  # type: ignore[assignment]  # the import system's own mark for "not there"
    try:
        from nats.aio.client import Client
    finally:
        if absent:
            del sys.modules["aiohttp"]
    return Client
