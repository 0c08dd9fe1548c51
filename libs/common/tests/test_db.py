"""Transactions, ids, times."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from espalier_common.db import TYPES, Database, Id, announce, new_id, new_metadata, utc_now


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime]
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)


@pytest.fixture(scope="module")
def database(database_url: str) -> Any:
    database = Database(database_url)
    Base.metadata.create_all(database.engine)
    yield database
    database.close()


def test_a_transaction_commits_or_leaves_nothing(database: Database) -> None:
    note = Note(at=utc_now(), extra={"a": 1})
    with database.transaction() as session:
        session.add(note)
    lost = Note(at=utc_now())

    def fail() -> None:
        with database.transaction() as session:
            session.add(lost)
            session.flush()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    with database.transaction() as session:
        found = session.get(Note, note.id)
        assert found is not None
        assert found.extra == {"a": 1}
        assert session.get(Note, lost.id) is None


def test_times_come_back_in_utc_and_naive_ones_are_refused(database: Database) -> None:
    eastern = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5)))
    with database.transaction() as session:
        note = Note(at=eastern)
        session.add(note)
        session.flush()
        session.refresh(note)
        assert note.at == eastern
        assert note.at.tzinfo is UTC
    with pytest.raises(SQLAlchemyError, match="no time zone"), database.transaction() as session:
        session.add(Note(at=datetime(2026, 1, 1)))


def test_ids_are_uuids_of_version_7_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**18, 10**18 + 10**9, 10**6))
    monkeypatch.setattr("espalier_common.identifiers.time.time_ns", lambda: next(clock))
    ids = [new_id() for _ in range(500)]
    assert ids == sorted(ids)
    assert {uuid.UUID(value).version for value in ids} == {7}
    assert {uuid.UUID(value).variant for value in ids} == {uuid.RFC_4122}


async def test_an_announcement_wakes_after_the_commit_only(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as session:
            announce(session, "topic")
            raise RuntimeError("no")

    with database.subscribe("topic") as subscription, database.subscribe("another") as another:
        with database.transaction() as session:
            announce(session, "topic")
            announce(session, "topic")
            assert not await subscription.wait(0.05)
        assert await subscription.wait(5)
        assert not await subscription.wait(0.05)
        with pytest.raises(RuntimeError):
            fail()
        assert not await subscription.wait(0.05)
        assert not await another.wait(0.05)


async def test_what_is_announced_while_nobody_waits_is_remembered_until_the_next_wait(database: Database) -> None:
    def commit() -> None:
        with database.transaction() as session:
            announce(session, "topic")

    with database.subscribe("topic") as subscription:
        await asyncio.to_thread(commit)
        await asyncio.to_thread(commit)
        assert await subscription.wait(5)
        assert not await subscription.wait(0.05)
    commit()


def test_reading_sees_what_is_committed_and_begins_nothing(database: Database) -> None:
    note = Note(id=new_id(), at=utc_now())
    with database.reading() as session:
        assert session.get(Note, note.id) is None
        with database.transaction() as other:
            other.add(note)
        assert session.get_one(Note, note.id).at == note.at
        assert session.scalar(text("SELECT pg_current_xact_id_if_assigned()")) is None
        # Each statement is its own transaction: a later one has begun later.
        assert session.scalar(text("SELECT now()")) < session.scalar(text("SELECT now()"))


def test_after_reading_the_same_connection_is_transactional_again(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    with database.reading() as session:
        reader = session.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(SQLAlchemyError), database.reading() as session:
        session.execute(text("SELECT 1 / 0"))
    with database.transaction() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) == reader
        assert session.scalar(text("SELECT now()")) == session.scalar(text("SELECT now()"))
    database.close()


def test_a_connection_killed_by_the_server_is_replaced(database: Database, postgres: Any) -> None:
    assert database.check()
    _kill_connections(database, postgres)
    with database.reading() as session:
        assert session.scalar(text("SELECT 1")) == 1
    _kill_connections(database, postgres)
    assert database.check()


def test_a_connection_killed_while_it_reads_is_not_used_again(database_url: str, postgres: Any) -> None:
    database = Database(database_url, pool_size=1)
    with database.reading() as session:
        _kill_connections(database, postgres)
        with pytest.raises(SQLAlchemyError):
            session.execute(text("SELECT 1"))
    assert database.check()
    database.close()


def _kill_connections(database: Database, postgres: Any) -> None:
    """Returns once their backends are gone."""
    connection = postgres.connect()
    with connection.cursor() as cursor:
        name = database.engine.url.database
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name])
    connection.close()


def test_a_forgotten_statement_is_ended_by_the_server(database: Database) -> None:
    with database.transaction() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "30s"
