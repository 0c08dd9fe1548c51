"""The end of an answer is stored, however long the database is away."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from espalier_common.telemetry import get_logger

MAX_PAUSE = 5.0

T = TypeVar("T")

_log = get_logger(__name__)


async def until_stored(store: Callable[[], T], *, message_id: str) -> T:
    """Calls `store`, which blocks, in a thread until it succeeds; gives its answer."""
    pause = 0.1
    while True:
        try:
            return await asyncio.to_thread(store)
        except Exception as error:
            _log.warning("an answer could not be kept yet", message_id=message_id, error=repr(error))
        await asyncio.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE)
