"""Wakes the streams of this process when something of their run was committed. A replica's streams poll, slowly."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event
from sqlalchemy.orm import Session


class Notifier:
    """Threads notify, coroutines wait. What is notified while nobody waits is remembered by each subscription."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Subscription]] = defaultdict(set)

    def after_commit(self, session: Session, topic: str) -> None:
        """Notifies once the transaction is committed; not at all when it is rolled back."""
        topics: set[str] | None = session.info.get("wake")
        if topics is None:
            topics = session.info["wake"] = set()
            event.listen(session, "after_commit", self._notify_all)
        topics.add(topic)

    def notify(self, topic: str) -> None:
        """Wakes everybody who is subscribed to the topic."""
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

    def _notify_all(self, session: Session) -> None:
        topics: set[str] = session.info.get("wake", set())
        while topics:
            self.notify(topics.pop())


class Subscription:
    """One stream that waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def wake(self) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Until notified, or so many seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()
