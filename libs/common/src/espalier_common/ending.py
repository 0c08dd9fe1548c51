"""Ends tasks for certain."""

import asyncio
from collections.abc import Collection
from typing import Any

AGAIN_SECONDS = 0.5


async def end_tasks(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """Cancels until every task is done; their results and errors are dropped.

    Once is not enough: Python 3.11's `wait_for` swallows a cancellation that comes with the answer it waits for.
    """
    while unfinished := [task for task in tasks if not task.done()]:
        for task in unfinished:
            task.cancel()
        await asyncio.wait(unfinished, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
