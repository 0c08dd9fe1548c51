"""Goes round for ever: a plain function in a thread, then a pause that ends at once when something was announced."""

import asyncio
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from espalier_common.db import Database
from espalier_common.telemetry import get_logger

IDLE_SECONDS = 5.0
"""Pause while there is nothing to watch; our own commits wake us, so only what another replica took waits so long."""
AFTER_FAILURE_SECONDS = 1.0

_log = get_logger(__name__)


async def go_round(tick: Callable[[], float], *, database: Database, topic: str) -> None:
    """`tick` gives the seconds until its next round; `announce(session, topic)` ends that pause.

    A database that is away is waited for with short pauses.
    """
    said = False
    with database.subscribe(topic) as subscription:
        while True:
            try:
                pause = await asyncio.to_thread(tick)
            except SQLAlchemyError as error:
                if not said:
                    _log.warning("the database does not answer, going on when it does", task=topic, error=repr(error))
                said, pause = True, AFTER_FAILURE_SECONDS
            else:
                said = False
            await subscription.wait(pause)
