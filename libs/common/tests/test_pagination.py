"""Keyset pages over a real database."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from espalier_common.db import TYPES, Database, Id, new_id, new_metadata, utc_now
from espalier_common.errors import InvalidArgument
from espalier_common.pagination import InvalidPageToken, Page, Paginator, paginate


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    rank: Mapped[int]
    created_at: Mapped[Any] = mapped_column(TYPES[__import__("datetime").datetime])


@pytest.fixture(scope="module")
def database(database_url: str) -> Any:
    database = Database(database_url)
    Base.metadata.create_all(database.engine)
    start = utc_now()
    with database.transaction() as session:
        session.add_all(Thing(rank=n % 3, created_at=start + timedelta(seconds=n % 4)) for n in range(25))
    yield database
    database.close()


@pytest.fixture
def paginator() -> Paginator:
    return Paginator("secret")


def walk(database: Database, paginator: Paginator, contract: SimpleNamespace, order: Any) -> list[Page[Thing]]:
    pages: list[Page[Thing]] = []
    token = ""
    while True:
        request = contract.Ask(name="ab", page_size=4, page_token=token)
        with database.transaction() as session:
            pages.append(paginate(session, select(Thing), order=order, page=paginator.read(request)))
        token = pages[-1].next_page_token
        if not token:
            return pages


@pytest.mark.parametrize(
    "order",
    [
        (Thing.id,),
        (Thing.created_at.desc(), Thing.id.desc()),
        (Thing.rank.desc(), Thing.created_at, Thing.id.desc()),
    ],
)
def test_pages_give_every_row_once_and_in_order(
    database: Database, paginator: Paginator, contract: SimpleNamespace, order: Any
) -> None:
    pages = walk(database, paginator, contract, order)
    with database.transaction() as session:
        expected = [thing.id for thing in session.scalars(select(Thing).order_by(*order))]
    assert [thing.id for page in pages for thing in page.items] == expected
    assert [len(page.items) for page in pages] == [4, 4, 4, 4, 4, 4, 1]


def test_a_page_that_ends_with_the_list_has_no_next(
    database: Database, paginator: Paginator, contract: SimpleNamespace
) -> None:
    page = paginator.read(contract.Ask(name="ab", page_size=25))
    with database.transaction() as session:
        assert paginate(session, select(Thing), order=(Thing.id,), page=page).next_page_token == ""


def test_sizes_are_clamped(paginator: Paginator, contract: SimpleNamespace) -> None:
    assert paginator.read(contract.Ask()).size == 50
    assert paginator.read(contract.Ask(page_size=100_000)).size == 1000
    with pytest.raises(InvalidArgument):
        paginator.read(contract.Ask(page_size=-1))


def test_a_token_of_another_question_or_key_is_refused(paginator: Paginator, contract: SimpleNamespace) -> None:
    token = paginator.read(contract.Ask(name="ab")).token(["x"])
    assert paginator.read(contract.Ask(name="ab", page_token=token, page_size=7)).after == ("x",)
    with pytest.raises(InvalidPageToken, match="another filter"):
        paginator.read(contract.Ask(name="cd", page_token=token))
    with pytest.raises(InvalidPageToken, match="not a page token"):
        Paginator("other").read(contract.Ask(name="ab", page_token=token))


def test_a_token_with_any_character_changed_or_added_is_refused(
    paginator: Paginator, contract: SimpleNamespace
) -> None:
    for word in ("x", "xy", "xyz"):  # lengths that end base64 in each way
        token = paginator.read(contract.Ask()).token([word])
        changed = [
            token[:at] + other + token[at + 1 :] for at in range(len(token)) for other in "AR_" if other != token[at]
        ]
        for text in [*changed, token + "=", token + "A", token + " ", " " + token, token[:-1]]:
            with pytest.raises(InvalidPageToken):
                paginator.read(contract.Ask(page_token=text))


@pytest.mark.parametrize("token", ["x", "é", "====", "a" * 5000, "AAAA"])
def test_nonsense_is_refused_as_a_token(paginator: Paginator, contract: SimpleNamespace, token: str) -> None:
    with pytest.raises(InvalidPageToken):
        paginator.read(contract.Ask(page_token=token))
