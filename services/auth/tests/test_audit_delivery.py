"""No event is lost: auth is killed, NATS is killed, and each stands in the chain once."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select, text

from espalier.auth.v1 import audit_pb2
from espalier_auth.audit.models import AuditEntry
from espalier_auth.audit.service import check_chain
from espalier_auth.settings import AuthSettings
from espalier_common import outbox
from espalier_common.bus import AUDIT, Bus
from espalier_common.db import Database, utc_now
from espalier_common.errors import Unavailable
from espalier_common.infra.nats import LocalNats
from espalier_common.infra.processes import free_port
from espalier_common.testing.plugin import MigratedDatabase

from .auth_process import AuthProcess

pytestmark = pytest.mark.slow

EVENTS = 300


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[LocalNats]:
    """A NATS of the test's own, with the permissions of the platform."""
    passwords = {"auth": uuid.uuid4().hex, "chat": uuid.uuid4().hex}
    server = LocalNats(tmp_path / "nats", port=free_port(), passwords=passwords)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def chat(nats: LocalNats, migrated_database: MigratedDatabase) -> AsyncIterator[Database]:
    """The database of a service that tells, with its relay running. Its tables are those of any service."""
    database = migrated_database("espalier_auth")
    bus = Bus(nats.url("chat"), name="chat")
    await bus.start()
    relay = asyncio.create_task(outbox.OutboxRelay(database, bus).run())
    yield database
    relay.cancel()
    with suppress(asyncio.CancelledError):
        await relay
    await bus.close()


def tell(database: Database, number: int) -> str:
    event = audit_pb2.AuditEvent(
        id=str(uuid.uuid4()),
        service="somebody-else",
        action="espalier.chat.v1.ChatService/CreateSession",
        request_id=str(number),
        result=audit_pb2.AUDIT_RESULT_DONE,
    )
    event.time.FromDatetime(utc_now())
    with database.transaction() as session:
        outbox.record(session, event, subject="espalier.chat.audit")
    return event.id


async def kept(database: Database, count: int, seconds: float = 300) -> set[str]:
    """Ids of the events told by chat, as soon as there are so many."""
    statement = select(AuditEntry.id).where(AuditEntry.service == "chat")
    end = time.monotonic() + seconds

    def read() -> set[str]:
        with database.transaction() as session:
            return set(session.scalars(statement))

    while len(found := await asyncio.to_thread(read)) < count:
        assert time.monotonic() < end, f"{len(found)} of {count}"
        await asyncio.sleep(0.05)
    return found


async def test_events_survive_the_death_of_auth_and_of_nats(
    nats: LocalNats, chat: Database, auth_settings: Callable[..., AuthSettings], tmp_path: Path
) -> None:
    settings = auth_settings()
    own, auth = Database(settings.database_url), AuthProcess(settings, tmp_path, nats.url("auth"))
    told: set[str] = set()

    async def tell_many(count: int) -> None:
        told.update([await asyncio.to_thread(tell, chat, number) for number in range(count)])

    try:
        await tell_many(EVENTS // 3)  # auth has never been there
        auth.start()
        await kept(own, 1)
        auth.kill()  # in the middle of it, with luck
        await tell_many(EVENTS // 3)
        await asyncio.to_thread(nats.stop)
        await tell_many(EVENTS // 3)  # neither is there
        auth.start()
        await asyncio.to_thread(nats.start)
        assert await kept(own, EVENTS) == told
        with own.transaction() as session:
            finding = check_chain(session)
            assert finding.broken == 0
            assert finding.checked >= EVENTS
            assert session.scalar(text("SELECT count(*) FROM dead_letters")) == 0
    finally:
        auth.kill()
        own.close()


async def test_a_service_cannot_tell_in_the_name_of_another(nats: LocalNats) -> None:
    bus = Bus(nats.url("chat"), name="chat")
    await bus.start()
    await bus.wait_connected()
    try:
        await bus.publish("espalier.chat.audit", b"", msg_id="1")
        with pytest.raises(Unavailable):
            await bus.publish("espalier.auth.audit", b"", msg_id="2")
    finally:
        await bus.close()


def test_the_stream_lets_nothing_go_by_itself() -> None:
    assert AUDIT.keeps_all
    assert AUDIT.max_age == 0
    assert AUDIT.takes("espalier.training_orchestrator.audit")
    assert not AUDIT.takes("espalier.chat.v1.AuditEvent")
