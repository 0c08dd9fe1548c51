"""The audit log's chain over a real PostgreSQL: nothing in it can change, and what changed all the same is found."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from espalier.auth.v1 import audit_pb2
from espalier_auth.audit import repository, service
from espalier_auth.audit.events import take_events
from espalier_auth.audit.kept_head import KeptHead
from espalier_auth.audit.models import START, Head, NewEvent, Result, words_of
from espalier_common.bus import Event
from espalier_common.db import Database
from espalier_common.testing.plugin import MigratedDatabase


@pytest.fixture
def database(migrated_database: MigratedDatabase) -> Database:
    return migrated_database("espalier_auth")


def event(**changes: object) -> NewEvent:
    made = NewEvent(
        id=str(uuid.uuid4()),
        time=datetime(2025, 3, 1, 12, 0, 0, 123456, UTC),
        service="auth",
        actor_id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002",
        actor_name="Ada",
        action="espalier.auth.v1.UserService/UpdateUser",
        target="users/018f6e1c-0b0a-7c3e-9d5a-0242ac120003",
        result=Result.DONE,
        reason="",
        address="192.0.2.7",
        request_id="abc",
        before='{"roles":["viewer"]}',
        after='{"roles":["admin"]}',
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def fill(database: Database, count: int) -> list[NewEvent]:
    events = [event(request_id=str(number)) for number in range(count)]
    with database.transaction() as session:
        service.append(session, events)
    return events


def check(database: Database, *, start: Head = START, remembered: Head | None = None) -> service.Finding:
    with database.transaction() as session:
        return service.check_chain(session, start=start, remembered=remembered)


def head_of(database: Database) -> Head:
    with database.transaction() as session:
        return repository.find_head(session)


@contextmanager
def tampering(database: Database) -> Iterator[Session]:
    """As somebody who owns the database, and switches the trigger off."""
    with database.transaction() as session:
        session.execute(text("ALTER TABLE audit_events DISABLE TRIGGER audit_events_are_append_only"))
        yield session
        session.execute(text("ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_are_append_only"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET reason = 'x'",
        "DELETE FROM audit_events WHERE sequence = 2",
        "TRUNCATE audit_events",
        "SET LOCAL session_replication_role = replica; DELETE FROM audit_events",
    ],
)
def test_the_table_takes_events_and_gives_none_back(database: Database, statement: str) -> None:
    fill(database, 3)
    with pytest.raises(ProgrammingError, match=r"append-only|permission denied"), database.transaction() as session:
        session.execute(text(statement))
    assert check(database).checked == 3


def test_a_whole_chain_is_found_whole(database: Database) -> None:
    fill(database, 5)
    found = check(database, remembered=head_of(database))
    assert (found.checked, found.broken, found.is_end) == (5, 0, True)


def test_an_empty_log_is_whole(database: Database) -> None:
    assert check(database).broken == 0


@pytest.mark.parametrize(
    "column", ["actor_name", "api_key_id", "action", "target", "result", "reason", "address", "before", "after"]
)
def test_a_changed_row_is_named(database: Database, column: str) -> None:
    fill(database, 5)
    with tampering(database) as session:
        session.execute(text(f"UPDATE audit_events SET {column} = {column} || 'x' WHERE sequence = 3"))
    found = check(database)
    assert (found.broken, found.checked) == (3, 2)


def test_an_event_that_a_search_would_miss_is_named(database: Database) -> None:
    fill(database, 3)
    with tampering(database) as session:
        session.execute(text("UPDATE audit_events SET words = '{}' WHERE sequence = 2"))
    assert check(database).broken == 2


def test_a_key_that_was_taken_out_is_named_and_an_event_without_one_has_the_hash_that_it_always_had(
    database: Database,
) -> None:
    with database.transaction() as session:
        _, head = service.append(session, [event(id="018f6e1c-0b0a-7c3e-9d5a-0242ac120009"), event(api_key_id="a")])
        assert repository.find_hash(session, 1) == bytes.fromhex(
            "d68d9d024aa1542da1a147074b3e2f5f2ae7611734d40b2c23c94404ac45f412"
        )
    assert check(database, remembered=head).broken == 0
    with tampering(database) as session:
        session.execute(text("UPDATE audit_events SET api_key_id = '' WHERE sequence = 2"))
    assert check(database).broken == 2


def test_a_changed_time_is_named(database: Database) -> None:
    fill(database, 3)
    with tampering(database) as session:
        session.execute(text("UPDATE audit_events SET time = time + interval '1 microsecond' WHERE sequence = 2"))
    assert check(database).broken == 2


def test_a_removed_row_is_named(database: Database) -> None:
    fill(database, 5)
    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events WHERE sequence = 4"))
    assert check(database).broken == 4


def test_a_removed_first_row_is_named(database: Database) -> None:
    fill(database, 2)
    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events WHERE sequence = 1"))
    assert check(database).broken == 1


def test_a_removed_row_whose_place_was_closed_is_found(database: Database) -> None:
    fill(database, 5)
    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events WHERE sequence = 3"))
        session.execute(text("UPDATE audit_events SET sequence = sequence - 1 WHERE sequence > 3"))
    assert check(database).broken == 3


def test_a_removed_end_is_found_with_the_head_that_was_kept(database: Database) -> None:
    fill(database, 5)
    head = head_of(database)
    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events WHERE sequence > 3"))
    assert check(database).broken == 0
    assert check(database, remembered=head).broken == 4


def test_a_chain_that_was_made_anew_is_found_with_the_head_that_was_kept(database: Database) -> None:
    fill(database, 3)
    head = head_of(database)
    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events"))
    fill(database, 4)
    assert check(database).broken == 0
    assert check(database, remembered=head).broken == 3


def test_a_check_goes_on_where_it_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CHECK_PAGE", 2)
    monkeypatch.setattr(service, "MOST_CHECKED", 4)
    fill(database, 7)
    first = check(database)
    assert (first.checked, first.is_end) == (4, False)
    second = check(database, start=first.reached)
    assert (second.checked, second.is_end) == (3, True)


def test_an_event_told_twice_is_kept_once(database: Database) -> None:
    events = fill(database, 2)
    with database.transaction() as session:
        service.append(session, [*events, events[0], event()])
    assert check(database).checked == 3


def test_many_writers_make_one_chain_without_gaps(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fill(database, 3), range(12)))
    assert check(database).checked == 36


def test_the_kept_head_is_not_moved_while_the_end_is_missing(database: Database, tmp_path: Path) -> None:
    kept = KeptHead(database, tmp_path / "audit-head")
    kept.keep()
    assert kept.read() is None
    fill(database, 4)
    kept.keep()
    head = head_of(database)
    assert (tmp_path / "audit-head").read_text() == f"{head}\n"
    assert (tmp_path / "audit-head").stat().st_mode & 0o777 == 0o600
    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events WHERE sequence = 4"))
    fill(database, 3)
    kept.keep()
    assert kept.read() == head
    assert check(database, remembered=kept.read()).broken == 4


def test_the_newest_event_cannot_be_removed_before_anybody_looks(database: Database, tmp_path: Path) -> None:
    kept = KeptHead(database, tmp_path / "audit-head")
    take(database, kept, 2)
    take(database, kept, 1)
    assert kept.read() == head_of(database)

    with tampering(database) as session:
        session.execute(text("DELETE FROM audit_events WHERE sequence = 3"))
    assert check(database, remembered=kept.read()).broken == 3
    take(database, kept, 2)  # what takes its place hides nothing
    assert check(database, remembered=kept.read()).broken == 3
    kept.keep()
    assert check(database, remembered=kept.read()).broken == 3


def take(database: Database, kept: KeptHead, count: int) -> None:
    """Events as they arrive over the bus."""
    told = [audit_pb2.AuditEvent(id=str(uuid.uuid4()), result=audit_pb2.AUDIT_RESULT_DONE) for _ in range(count)]
    events = [Event("espalier.auth.audit", each.SerializeToString(), each.id, datetime.now(UTC)) for each in told]
    with database.transaction() as session:
        take_events(session, events, kept_head=kept)


def test_a_search_finds_whole_values_and_words_in_them(database: Database) -> None:
    words = words_of(event())
    assert {"updateuser", "update", "user", "userservice", "ada", "192.0.2.7", "abc", "users"} <= set(words)
    assert "espalier" not in words
