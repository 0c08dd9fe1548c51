"""Receivers, and events to send them."""

import base64
import secrets
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from espalier_auth.audit import service
from espalier_auth.audit.models import NewEvent, Result
from espalier_common.db import Database

from .receivers import Collector, Webhook, serving


@pytest.fixture
def secret() -> str:
    """What signs, as a setting."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
def webhook(secret: str) -> Iterator[Webhook]:
    """One that answers at once."""
    made = Webhook(base64.b64decode(secret))
    made.may_answer.set()
    with serving(made):
        yield made


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One without TLS."""
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def fill() -> Callable[..., None]:
    """Appends so many events to the log of a database."""

    def append(database: Database, count: int, **changes: Any) -> None:
        values: dict[str, Any] = {
            "time": datetime.now(UTC),
            "service": "auth",
            "actor_id": "018f6e1c-0b0a-7c3e-9d5a-0242ac120002",
            "actor_name": "Ada",
            "action": "espalier.auth.v1.UserService/UpdateUser",
            "target": "users/018f6e1c-0b0a-7c3e-9d5a-0242ac120003",
            "result": Result.DONE,
            "reason": "",
            "address": "192.0.2.7",
            "request_id": "abc",
            "before": '{"display_name":"Åda"}',
            "after": '{"display_name":"one\\ntwo"}',
        }
        events = [NewEvent(**{**values, "id": str(uuid.uuid4()), **changes}) for _ in range(count)]
        with database.transaction() as session:
            service.append(session, events)

    return append
