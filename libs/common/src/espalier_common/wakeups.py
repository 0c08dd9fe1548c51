"""Wakes coroutines of this process when a transaction that they wait for was committed. Other replicas poll, slowly."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Wakeups:
    """Threads notify, coroutines wait. What is notified while nobody waits is remembered by each subscription."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Subscription]] = defaultdict(set)

    def notify(self, topic: str) -> None:
        """Wakes everybody who is subscribed to the topic; from any thread."""
        with self._lock:
            waiting = list(self._waiting.get(topic, ()))
        for subscription in waiting:
            subscription.wake()

    @contextmanager
    def subscribe(self, topic: str) -> Iterator["Subscription"]:
        """A subscription for the length of the block; used on the event loop."""
        subscription = Subscription(asyncio.get_running_loop())
        with self._lock:
            self._waiting[topic].add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._waiting[topic].discard(subscription)
                if not self._waiting[topic]:
                    del self._waiting[topic]


class Subscription:
    """One coroutine that waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def wake(self) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> bool:
        """Until notified, or so many seconds at most; True when notified."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._event.clear()
        return True
