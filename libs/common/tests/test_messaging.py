"""Outbox, bus and consumers over real PostgreSQL and real NATS."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nats
import pytest
from sqlalchemy import func, select, text

from espalier.common.v1 import events_pb2
from espalier_common.bus import AUDIT, Bus, Consumer, Event, Stream
from espalier_common.db import Database, utc_now
from espalier_common.errors import Unavailable
from espalier_common.infra import processes
from espalier_common.infra.nats import USAGE_REPORTS, LocalNats
from espalier_common.outbox import OutboxRelay, record
from espalier_common.tables import dead_letters, outbox, processed_messages

REVISION = """
from alembic import op
import sqlalchemy as sa
from espalier_common.migrations import create_messaging_tables, drop_messaging_tables

revision = "0001"
down_revision = None

def upgrade() -> None:
    op.create_table("effects", sa.Column("value", sa.Text, nullable=False))
    create_messaging_tables(op)

def downgrade() -> None:
    drop_messaging_tables(op)
    op.drop_table("effects")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An installed package with migrations of its own."""
    name = f"messaging_{uuid.uuid4().hex}"
    root: Path = tmp_path_factory.mktemp("packages")
    versions = root / name / "_migrations" / "versions"
    versions.mkdir(parents=True)
    (root / name / "__init__.py").touch()
    (versions / "0001_first.py").write_text(REVISION)
    sys.path.insert(0, str(root))
    yield name
    sys.path.remove(str(root))


@pytest.fixture
def database(migrated_database: Callable[[str], Database], package: str) -> Database:
    return migrated_database(package)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(nats_url, name="tests")
    await bus.start()
    await asyncio.wait_for(bus.wait_connected(), 60)
    yield bus
    await bus.close()


@pytest.fixture
def stream() -> Stream:
    """A stream of the test's own, so that tests do not see each other's messages."""
    name = f"s{uuid.uuid4().hex}"
    return Stream(name, (f"{name}.*",), max_age=600, max_bytes=1 << 20)


async def becomes(condition: Callable[[], Any], *, seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def count(database: Database, table: Any, where: Any = None) -> int:
    query = select(func.count()).select_from(table)
    with database.transaction() as session:
        return session.scalar(query if where is None else query.where(where)) or 0


def effects(database: Database) -> list[str]:
    with database.transaction() as session:
        return sorted(session.scalars(text("SELECT value FROM effects")))


def note(session: Any, event: Event) -> None:
    session.execute(text("INSERT INTO effects VALUES (:value)"), {"value": event.payload.decode()})


def note_all(session: Any, events: Any) -> None:
    for event in events:
        note(session, event)


@pytest.fixture
async def run() -> AsyncIterator[Callable[[Callable[[], Awaitable[None]]], None]]:
    """Runs coroutine functions until the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    async def forever(call: Callable[[], Awaitable[None]]) -> None:
        await call()

    yield lambda call: tasks.append(asyncio.create_task(forever(call)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def unpublished(database: Database) -> int:
    return count(database, outbox, outbox.c.published_at.is_(None))


async def test_an_event_leaves_after_its_commit_and_never_after_a_rollback(
    database: Database, bus: Bus, run: Any, contract: SimpleNamespace
) -> None:
    run(OutboxRelay(database, bus).run)

    def change(number: int, *, fail: bool) -> None:
        with database.transaction() as session:
            record(session, contract.Reply(number=number), key="k")
            if fail:
                raise RuntimeError("no")

    seen = await bus.live("espalier.common_tests.v1.Reply")
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(lambda: change(1, fail=True))
    await asyncio.to_thread(lambda: change(2, fail=False))
    message = await seen.next_msg(timeout=60)
    assert contract.Reply.FromString(message.data).number == 2
    assert message.headers["Espalier-Key"] == "k"
    await becomes(lambda: unpublished(database) == 0)


async def test_an_event_waits_while_the_bus_is_away_and_leaves_in_order(
    database: Database, run: Any, contract: SimpleNamespace, service_home: Path
) -> None:
    server = LocalNats(service_home / uuid.uuid4().hex, port=processes.free_port(), passwords={"common-tests": "pw"})
    bus = Bus(server.url("common-tests"), name="common-tests")
    await bus.start()
    run(OutboxRelay(database, bus).run)

    def store() -> None:
        for number in range(5):
            with database.transaction() as session:
                record(session, contract.Reply(number=number))

    await asyncio.to_thread(store)
    with pytest.raises(Unavailable):
        await bus.publish("espalier.common_tests.v1.Reply", b"", msg_id="1")
    assert unpublished(database) == 5
    await asyncio.to_thread(server.start)
    try:
        await becomes(lambda: unpublished(database) == 0)
        # Killed and started again: the connection comes back by itself.
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(store)
        await asyncio.to_thread(server.start)
        await becomes(lambda: unpublished(database) == 0)
    finally:
        await bus.close()
        await asyncio.to_thread(server.stop)


async def test_a_user_publishes_its_own_and_reports_of_use_and_nothing_else(service_home: Path) -> None:
    server = LocalNats(
        service_home / uuid.uuid4().hex, port=processes.free_port(), passwords={"auth": "a", "chat": "b"}
    )
    await asyncio.to_thread(server.start)
    bus = Bus(server.url("chat"), name="chat")
    try:
        await bus.start()
        await asyncio.wait_for(bus.wait_connected(), 60)
        await bus.publish("espalier.chat.v1.Said", b"", msg_id="1")
        await bus.publish(USAGE_REPORTS, b"", msg_id="3")
        with pytest.raises(Unavailable):
            await bus.publish("espalier.auth.v1.UserCreated", b"", msg_id="2")
    finally:
        await bus.close()
        await asyncio.to_thread(server.stop)


async def test_a_service_takes_nothing_of_others_out_of_the_bus_and_changes_no_stream(service_home: Path) -> None:
    server = LocalNats(
        service_home / uuid.uuid4().hex, port=processes.free_port(), passwords={"auth": "a", "chat": "b"}
    )
    await asyncio.to_thread(server.start)
    auth, chat = Bus(server.url("auth"), name="auth"), Bus(server.url("chat"), name="chat")
    refused: list[str] = []

    async def note_refusal(error: Exception) -> None:
        refused.append(str(error).lower())

    client = await nats.connect(f"nats://127.0.0.1:{server.port}", user="chat", password="b", error_cb=note_refusal)
    try:
        for bus in (auth, chat):
            await bus.start()
            await asyncio.wait_for(bus.wait_connected(), 60)
        await auth.publish("espalier.auth.audit", b"", msg_id="1")
        # One of another release: the settings stay those of the stream's owner.
        await chat.ensure_stream(replace(AUDIT, max_bytes=1 << 20))
        await chat.publish("espalier.chat.audit", b"", msg_id="2")
        consumer = await auth.subscribe(AUDIT, durable="auth-audit", subjects=AUDIT.subjects)

        consumers, streams = "$JS.API.CONSUMER", "$JS.API.STREAM"
        forbidden = [
            "espalier.auth.audit",
            "$JS.API.DIRECT.GET.audit",
            "$JS.ACK.audit.auth-audit.1.1.1.1.0",
            *(f"{streams}.{verb}.audit" for verb in ("UPDATE", "PURGE", "DELETE", "MSG.GET", "MSG.DELETE", "SNAPSHOT")),
            *(f"{streams}.CREATE.{name}" for name in ("other", "audit2")),
            *(f"{consumers}.{verb}.audit" for verb in ("CREATE", "CREATE.audit.chat", "DURABLE.CREATE.audit.chat")),
            *(f"{consumers}.{verb}.audit.auth-audit" for verb in ("MSG.NEXT", "DELETE", "INFO", "PAUSE", "UNPIN")),
        ]
        for subject in forbidden:
            await client.publish(subject, b"{}")
        # The client hears of a refusal after the answer that it waits for.
        await client.flush(60)
        await becomes(lambda: len(refused) >= len(forbidden))
        assert sorted(refused) == sorted(
            f'nats: permissions violation for publish to "{subject.lower()}"' for subject in forbidden
        )

        found = [await consumer.fetch(1, timeout=60) for _ in range(2)]
        assert [message.subject for (message,) in found] == ["espalier.auth.audit", "espalier.chat.audit"]
    finally:
        await client.close()
        await auth.close()
        await chat.close()
        await asyncio.to_thread(server.stop)


async def test_a_bus_that_is_slow_gets_a_batch_in_several_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espalier_common import outbox as module

    sent: list[str] = []

    class Slow:
        def publish_from_thread(self, subject: str, payload: bytes, **_: Any) -> None:
            sent.append(subject)

    monkeypatch.setattr(module, "MAX_BATCH_SECONDS", -1.0)  # as if each took all the time that there is
    with database.transaction() as session:
        for subject in ("espalier.a.v1.One", "espalier.a.v1.Two"):
            record(session, events_pb2.EventPack(), subject=subject)
    relay = OutboxRelay(database, Slow())  # type: ignore[arg-type]
    assert [relay.publish_batch() for _ in range(3)] == [1, 1, 0]
    assert sent == ["espalier.a.v1.One", "espalier.a.v1.Two"]


async def test_a_message_takes_effect_once_however_often_it_comes(
    database: Database, bus: Bus, run: Any, stream: Stream
) -> None:
    subject = f"{stream.name}.a"
    consumers = [
        Consumer(bus, database, durable=f"c-{stream.name}", subjects=[subject], batch_handler=note_all, stream=stream)
        for _ in range(2)
    ]
    for consumer in consumers:
        run(consumer.run)
    await bus.ensure_stream(stream)
    for number in range(20):
        await bus.publish(subject, f"{number:02}".encode(), msg_id=f"m{number}")
        await bus.publish(subject, f"{number:02}".encode(), msg_id=f"m{number}")
    await becomes(lambda: len(effects(database)) >= 20)
    assert effects(database) == [f"{number:02}" for number in range(20)]
    assert count(database, processed_messages) == 20


async def test_an_event_is_applied_at_once_though_it_answers_a_request_that_nobody_waits_for_any_more(
    database: Database, bus: Bus, run: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espalier_common import bus as module

    monkeypatch.setattr(module, "FETCH_SECONDS", 600.0)
    subject, durable = f"{stream.name}.a", f"c-{stream.name}"
    consumer = Consumer(bus, database, durable=durable, subjects=[subject], batch_handler=note_all, stream=stream)
    subscribe = bus.subscribe

    async def subscribe_and_ask_in_vain(*wanted: Any, **more: Any) -> Any:
        subscription = await subscribe(*wanted, **more)
        forgotten = json.dumps({"batch": 1, "expires": 600_000_000_000}).encode()
        await subscription._nc.publish(subscription._nms, forgotten, subscription._deliver)
        return subscription

    monkeypatch.setattr(bus, "subscribe", subscribe_and_ask_in_vain)
    run(consumer.run)
    await bus.ensure_stream(stream)
    for number in range(3):
        await bus.publish(subject, f"{number}".encode(), msg_id=f"m{number}")
        # Waiting for more, it would take as long as its request lasts: ten minutes.
        await becomes(lambda number=number: len(effects(database)) == number + 1, seconds=30)
    assert effects(database) == ["0", "1", "2"]


async def test_a_second_delivery_of_an_applied_message_changes_nothing(database: Database) -> None:
    from espalier_common.inbox import Inbox

    inbox = Inbox(database, consumer="c", handler=note_all)
    event = Event("s", b"once", "m1", utc_now())
    assert inbox.apply([event, event])
    assert inbox.apply([event])
    assert effects(database) == ["once"]


async def test_a_bad_message_is_kept_with_its_error_and_the_good_ones_go_through(
    database: Database, bus: Bus, run: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espalier_common import bus as module

    monkeypatch.setattr(module, "REDELIVERY_PAUSES", (0.01,))

    def handle(session: Any, events: Any) -> None:
        for event in events:
            if event.payload == b"bad":
                raise ValueError("cannot take it")
            note(session, event)

    subject = f"{stream.name}.a"
    await bus.ensure_stream(stream)
    for payload in (b"one", b"bad", b"two"):
        await bus.publish(subject, payload, msg_id=payload.decode())
    run(
        Consumer(bus, database, durable=f"c-{stream.name}", subjects=[subject], batch_handler=handle, stream=stream).run
    )
    await becomes(lambda: count(database, dead_letters) == 1)
    assert effects(database) == ["one", "two"]
    with database.transaction() as session:
        letter = session.execute(select(dead_letters)).one()
    assert letter.payload == b"bad"
    assert "cannot take it" in letter.error


async def test_nothing_is_lost_while_the_database_is_away_for_longer_than_a_bad_message_is_tried(
    database: Database, bus: Bus, run: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espalier_common import bus as module

    monkeypatch.setattr(module, "REDELIVERY_PAUSES", (0.01,))
    subject = f"{stream.name}.a"
    consumer = Consumer(
        bus, database, durable=f"c-{stream.name}", subjects=[subject], batch_handler=note_all, stream=stream
    )
    apply, tries = consumer._inbox.apply, 0

    def apply_once_it_is_back(events: Any) -> bool:
        nonlocal tries
        tries += bool(events)
        return apply(events) if tries > 60 or not events else False

    monkeypatch.setattr(consumer._inbox, "apply", apply_once_it_is_back)
    monkeypatch.setattr(consumer._inbox, "bury", lambda _: False)
    await bus.ensure_stream(stream)
    await bus.publish(subject, b"kept", msg_id="m1")
    run(consumer.run)
    await becomes(lambda: effects(database) == ["kept"])
    assert tries > 60


async def test_published_events_are_forgotten_after_a_day(database: Database, bus: Bus, contract: Any) -> None:
    relay = OutboxRelay(database, bus)

    def work() -> None:
        with database.transaction() as session:
            record(session, contract.Reply(number=1))
        relay.publish_batch()
        relay.prune()
        assert count(database, outbox) == 1
        with database.transaction() as session:
            session.execute(text("UPDATE outbox SET published_at = published_at - interval '25 hours'"))
        relay.prune()
        assert count(database, outbox) == 0

    await asyncio.to_thread(work)
