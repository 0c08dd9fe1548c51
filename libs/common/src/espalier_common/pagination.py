"""Keyset pages: never an offset, so a page costs the same anywhere in a list and rows that come or go shift nothing.

A page token is opaque and signed. It carries the sort values of the last row and a fingerprint of every other field of
the request, so that a token of one question is refused for another.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson
from google.protobuf.message import Message
from pydantic import SecretStr
from sqlalchemy import ColumnElement, Select, and_, literal, or_
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import desc_op

from espalier_common.errors import FieldViolation, InvalidArgument

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

T = TypeVar("T")


class InvalidPageToken(InvalidArgument):
    reason = "INVALID_PAGE_TOKEN"


@dataclass(frozen=True)
class PageRequest:
    """Which page: at most `size` rows after the row with the sort values `after` (None: from the start)."""

    size: int
    after: tuple[Any, ...] | None
    fingerprint: str
    paginator: "Paginator"

    def token(self, values: Sequence[Any]) -> str:
        """The token of the page after the row with these sort values."""
        return self.paginator.encode(values, self.fingerprint)


@dataclass(frozen=True)
class Page(Generic[T]):
    """Rows, and the token of the next page; empty at the end."""

    items: list[T]
    next_page_token: str


class Paginator:
    """Reads and writes page tokens, signed with a key derived from a secret that all replicas share."""

    def __init__(self, secret: str | SecretStr) -> None:
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        self._key = hashlib.sha256(b"espalier page tokens\x00" + text.encode()).digest()

    def read(self, request: Message) -> PageRequest:
        """The page asked for by a request with `page_size` and `page_token`. Raises InvalidPageToken."""
        token: str = getattr(request, "page_token", "")
        fingerprint = _fingerprint(request)
        after = self._decode(token, fingerprint) if token else None
        return PageRequest(_clamp(getattr(request, "page_size", 0)), after, fingerprint, self)

    def encode(self, values: Sequence[Any], fingerprint: str) -> str:
        """A signed token that holds these sort values."""
        body = orjson.dumps([fingerprint, [_to_wire(value) for value in values]])
        return _spelled(self._sign(body) + body)

    def _decode(self, token: str, fingerprint: str) -> tuple[Any, ...]:
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raise _refused("is not a page token of this list; start again without it") from None
        signature, body = raw[:16], raw[16:]
        # base64 reads some texts alike that differ; a token has one spelling.
        if not hmac.compare_digest(signature, self._sign(body)) or _spelled(raw) != token:
            raise _refused("is not a page token of this list; start again without it")
        made_for, values = orjson.loads(body)
        if made_for != fingerprint:
            raise _refused("belongs to a list with another filter or order; start again without it")
        return tuple(_from_wire(value) for value in values)

    def _sign(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()[:16]


def paginate(
    session: Session,
    query: Select[T],
    *,
    order: Sequence[ColumnElement[Any] | Any],
    page: PageRequest,
) -> Page[T]:
    """One page of a query of entities, sorted by `order` (columns, `.desc()` where descending).

    The columns are NOT NULL and the last one is unique. `T` must be an entity that has them as attributes.
    """
    keys = [_key_of(column) for column in order]
    if page.after is not None:
        if len(page.after) != len(keys):
            raise _refused("belongs to a list with another order; start again without it")
        query = query.where(_beyond(keys, page.after))
    rows = list(session.scalars(query.order_by(None).order_by(*order).limit(page.size + 1)))
    items = rows[: page.size]
    if len(rows) <= page.size:
        return Page(items, "")
    return Page(items, page.token([getattr(items[-1], column.key) for column, _ in keys]))


def _spelled(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _key_of(column: Any) -> tuple[Any, bool]:
    if isinstance(column, UnaryExpression):
        return column.element, column.modifier is desc_op
    return column, False


def _beyond(keys: Sequence[tuple[Any, bool]], values: Sequence[Any]) -> ColumnElement[bool]:
    """(a, b) after (x, y), for any mix of directions: a > x or (a = x and b > y)."""
    clauses = []
    for index, ((column, descending), value) in enumerate(zip(keys, values, strict=True)):
        bound = literal(value, column.type)
        beyond = column < bound if descending else column > bound
        same = [
            earlier == literal(known, earlier.type) for (earlier, _), known in zip(keys[:index], values, strict=False)
        ]
        clauses.append(and_(*same, beyond))
    return or_(*clauses)


def _clamp(size: int) -> int:
    if size < 0:
        raise InvalidArgument(
            "The page size is negative.", violations=[FieldViolation("page_size", "must not be negative", "TOO_SMALL")]
        )
    return min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _fingerprint(request: Message) -> str:
    question = type(request)()
    question.CopyFrom(request)
    for name in ("page_size", "page_token"):
        if name in question.DESCRIPTOR.fields_by_name:
            question.ClearField(name)
    kind = question.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(kind + b"\x00" + question.SerializeToString(deterministic=True)).hexdigest()[:16]


def _to_wire(value: Any) -> Any:
    return {"t": value.isoformat()} if isinstance(value, datetime) else value


def _from_wire(value: Any) -> Any:
    return datetime.fromisoformat(value["t"]) if isinstance(value, dict) else value


def _refused(description: str) -> InvalidPageToken:
    return InvalidPageToken(
        f"The page token {description}.", violations=[FieldViolation("page_token", description, "INVALID_PAGE_TOKEN")]
    )
