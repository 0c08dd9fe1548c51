"""Nothing is lost on the way to a receiver, whoever is killed."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from espalier_auth.settings import AuthSettings
from espalier_common.db import Database

from .receivers import SECONDS, Webhook, serving

pytestmark = pytest.mark.slow

EVENTS = 300  # more than a batch


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5 * SECONDS):
        while not is_so():
            await asyncio.sleep(0.02)


async def test_each_event_arrives_though_auth_and_its_receiver_are_killed(
    auth_settings: Callable[..., AuthSettings],
    auth_process: Callable[..., Any],
    fill: Callable[..., None],
    secret: str,
    tmp_path: Path,
) -> None:
    settings = auth_settings()
    own = Database(settings.database_url)
    first, second = Webhook(base64.b64decode(secret)), Webhook(base64.b64decode(secret))
    second.may_answer.set()
    await asyncio.to_thread(fill, own, EVENTS)
    with serving(first):
        auth = auth_process(
            settings,
            tmp_path,
            "nats://127.0.0.1:1",
            ESPALIER_AUDIT_FORWARD_URL=f"http://ada:hidden-word@127.0.0.1:{first.port}/hidden-path?key=hidden-key",
            ESPALIER_AUDIT_FORWARD_SECRET=secret,
        )
        auth.start()
        await until(first.has_come.is_set)
        auth.kill()  # before anything is confirmed
    try:
        auth.start()  # while nobody is there
        await asyncio.to_thread(fill, own, EVENTS)
        await until(lambda: "audit events wait for their destination" in auth.log.read_text())
        with serving(second, port=first.port):
            await until(lambda: len(second.sequences()) >= 2 * EVENTS)
            auth.kill()
        assert first.sequences()[:2] == [1, 2]
        assert second.sequences() == list(range(1, 2 * EVENTS + 1))
        assert not any(word in auth.log.read_text() for word in ("hidden", secret))
    finally:
        auth.kill()
        own.close()
