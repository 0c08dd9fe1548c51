"""Filters of the audit log over a real PostgreSQL: each, several together, on every way that a page may be found."""

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from espalier_auth.audit import search, service
from espalier_auth.audit.models import NewEvent, Result
from espalier_auth.audit.search import Filter
from espalier_common.db import Database
from espalier_common.pagination import PageRequest, Paginator
from espalier_common.testing.plugin import MigratedDatabase

ADA = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
UPDATE, DELETE = "espalier.auth.v1.UserService/UpdateUser", "espalier.auth.v1.UserService/DeleteUser"
LOGIN = "espalier.auth.v1.AuthService/Login"
# How many events are few, many, and looked through at once: each makes another way the one that finds the page.
WAYS = ((0, 0, 1), (0, 0, 10_000), (1, 1, 2), (3, 7, 5), (1_000, 20_000, 2_500))


@pytest.fixture
def session(migrated_database: MigratedDatabase) -> Iterator[Session]:
    database: Database = migrated_database("espalier_auth")
    with database.transaction() as session:
        yield session


def event(**changes: object) -> NewEvent:
    made = NewEvent(
        id=str(uuid.uuid4()),
        time=NOON,
        service="auth",
        actor_id=ADA,
        actor_name="Ada",
        action=UPDATE,
        target="users/018f6e1c-0b0a-7c3e-9d5a-0242ac120003",
        result=Result.DONE,
        reason="",
        address="192.0.2.7",
        request_id="abc",
        before="",
        after="",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def listed(session: Session, wanted: Filter) -> list[int]:
    """Sequences over all pages of two."""
    paginator, after, found = Paginator("secret"), None, list[int]()
    while True:
        page = search.list_events(session, wanted, PageRequest(2, after, "", paginator))
        found += [entry.sequence for entry in page.items]
        if not page.next_page_token:
            return found
        after = (page.items[-1].time, page.items[-1].sequence)


def exported(session: Session, wanted: Filter) -> list[int]:
    return [entry.sequence for entry in search.read_events(session, wanted, after=None, limit=1000)]


def take_way(monkeypatch: pytest.MonkeyPatch, way: tuple[int, int, int]) -> None:
    for name, value in zip(("FEW", "MANY", "WINDOW"), way, strict=True):
        monkeypatch.setattr(search, name, value)


NARROWED: tuple[tuple[Filter, int], ...] = (
    (Filter(), 4),
    (Filter(actor="Ada"), 3),
    (Filter(actor=ADA), 4),
    (Filter(action="espalier.auth.v1.UserService"), 3),
    (Filter(action="espalier.auth.v1."), 4),
    (Filter(action=LOGIN), 1),
    (Filter(action="espalier.nothing"), 0),
    (Filter(action="%"), 0),
    (Filter(target="users/018f"), 3),
    (Filter(target="users/"), 3),
    (Filter(target="users/%"), 0),
    (Filter(result=Result.REFUSED), 1),
    (Filter(result=Result.FAILED), 0),
    (Filter(address="192.0.2.7"), 3),
    (Filter(address="192.0.2"), 0),
    (Filter(request_id="abc"), 3),
    (Filter(request_id="ab"), 0),
    (Filter(words=("update", "ada")), 2),
    (Filter(words=("nobody",)), 0),
    (Filter(start=NOON + timedelta(hours=1)), 1),
    (Filter(end=NOON + timedelta(hours=1)), 3),
    (Filter(actor="Ada", action=DELETE), 1),
    (Filter(actor="Bob", action=DELETE), 0),
    (Filter(action="espalier.auth.v1.", address="198.51.100.4", result=Result.REFUSED), 1),
    (Filter(actor=ADA, target="users/", words=("update",), end=NOON + timedelta(hours=1)), 2),
)


def test_filters_narrow(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    login = event(
        action=LOGIN,
        target="auth/login",
        actor_name="Bob",
        result=Result.REFUSED,
        address="198.51.100.4",
        request_id="xyz",
        time=NOON + timedelta(days=1),
    )
    service.append(session, [event(), event(), login, event(action=DELETE)])
    for wanted, count in NARROWED:
        found = exported(session, wanted)
        assert len(found) == count, wanted
        for way in WAYS:
            take_way(monkeypatch, way)
            assert listed(session, wanted) == found[::-1], (wanted, way)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_two_and_three_filters_at_once_find_the_same_as_an_export(
    session: Session, monkeypatch: pytest.MonkeyPatch, way: tuple[int, int, int]
) -> None:
    service.append(session, [mixed(number) for number in range(60)])
    take_way(monkeypatch, way)
    parts: list[dict[str, object]] = [
        {"actor": "Ada"},
        {"action": UPDATE},
        {"action": "espalier.auth.v1.UserService/"},
        {"target": "users/1"},
        {"result": Result.REFUSED},
        {"address": "192.0.2.1"},
        {"words": ("update",)},
        {"start": NOON + timedelta(minutes=7), "end": NOON + timedelta(minutes=40)},
    ]
    for chosen in (*itertools.combinations(parts, 2), *itertools.combinations(parts, 3)):
        wanted = Filter(**{name: value for part in chosen for name, value in part.items()})  # type: ignore[arg-type]
        assert listed(session, wanted) == exported(session, wanted)[::-1], wanted


def mixed(number: int) -> NewEvent:
    """Events of which each filter finds some, and some at the same moment."""
    return event(
        time=NOON + timedelta(minutes=number // 2),
        actor_name=("Ada", "Bob")[number % 2],
        action=(UPDATE, DELETE, LOGIN)[number % 3],
        target=f"users/{number % 5}",
        result=(Result.DONE, Result.REFUSED)[number % 7 < 3],
        address=f"192.0.2.{number % 4}",
        request_id=str(number),
    )
