"""Every event of the log arrives, in order, whoever dies or hangs, and nobody waits for it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from espalier_auth.audit import forwarder
from espalier_auth.audit.destinations import outgoing, read_address
from espalier_auth.audit.forwarder import BATCH, BATCH_BYTES, Forwarder, ForwardingMetrics, Round
from espalier_auth.audit.models import AuditEntry
from espalier_auth.audit.rpc import to_event
from espalier_common.db import Database
from espalier_common.testing.plugin import MigratedDatabase

from .receivers import SECONDS, Collector, Webhook


@pytest.fixture
def database(migrated_database: MigratedDatabase) -> Database:
    return migrated_database("espalier_auth")


@pytest.fixture
def open_forwarder(database: Database, secret: str) -> Callable[..., Forwarder]:
    """Factory by the address: one of the platform's replicas."""

    def create(url: str, **more: Any) -> Forwarder:
        address = read_address(url, secret=secret, authorities=None)
        return Forwarder(database, address.open(), name=address.name, **more)

    return create


@pytest.fixture
def to_webhook(webhook: Webhook, open_forwarder: Callable[..., Forwarder]) -> Callable[..., Forwarder]:
    def create(**more: Any) -> Forwarder:
        return open_forwarder(f"http://127.0.0.1:{webhook.port}/", **more)

    return create


def drain(forwarder: Forwarder) -> None:
    while (found := forwarder.forward()).more:
        assert not found.failure


def test_each_event_goes_once_in_order_in_batches_of_few_bytes(
    database: Database, fill: Callable[..., None], to_webhook: Callable[..., Forwarder], webhook: Webhook
) -> None:
    fill(database, BATCH + 5)
    fill(database, 60, before='"' + "x" * 16_000 + '"')
    one = to_webhook()
    drain(one)
    fill(database, 1)
    drain(one)
    drain(to_webhook())  # the next process goes on where this one was
    assert webhook.sequences() == list(range(1, BATCH + 67))
    assert max(webhook.sizes) <= BATCH_BYTES + 1000
    assert len(webhook.batches[0]["events"]) == BATCH


def test_an_event_says_what_the_api_says_of_it(database: Database, fill: Callable[..., None]) -> None:
    fill(database, 1)
    with database.transaction() as session:
        entry = session.scalars(select(AuditEntry)).one()
    told = MessageToDict(to_event(entry), preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert orjson.loads(outgoing(entry).json) == {**told, "sequence": int(told["sequence"])}


def test_what_was_not_confirmed_comes_again_and_nothing_is_missing(
    database: Database, fill: Callable[..., None], to_webhook: Callable[..., Forwarder], webhook: Webhook
) -> None:
    webhook.statuses = [None, 503]  # it takes them and dies before it answers; then it is in trouble
    fill(database, 2)
    one = to_webhook()
    assert one.forward().failure
    fill(database, 1)
    assert "503" in one.forward().failure
    drain(one)
    assert webhook.sequences() == [1, 2, 1, 2, 3, 1, 2, 3]


def test_a_collector_gets_the_whole_log_and_another_one_too(
    database: Database, fill: Callable[..., None], open_forwarder: Callable[..., Forwarder], collector: Collector
) -> None:
    fill(database, BATCH + 1)
    drain(open_forwarder(f"syslog+tcp://127.0.0.1:{collector.port}"))
    drain(open_forwarder(f"syslog+tcp://localhost:{collector.port}"))  # another name, another cursor
    assert [message.event["sequence"] for message in collector.messages] == 2 * list(range(1, BATCH + 2))


async def test_one_replica_forwards_at_a_time(
    database: Database, fill: Callable[..., None], to_webhook: Callable[..., Forwarder], webhook: Webhook
) -> None:
    webhook.may_answer.clear()
    fill(database, 2)
    first = asyncio.create_task(asyncio.to_thread(to_webhook().forward))
    await asyncio.to_thread(webhook.has_come.wait, SECONDS)
    assert await asyncio.to_thread(to_webhook().forward) == Round(more=False, failure="")
    webhook.may_answer.set()
    assert await first == Round(more=False, failure="")
    assert webhook.sequences() == [1, 2]


async def test_nobody_waits_for_a_receiver_that_hangs(
    start_auth: Callable[..., Any],
    fill: Callable[..., None],
    webhook: Webhook,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("espalier_auth.audit.webhook.ANSWER_SECONDS", 10.0 * SECONDS)  # who waited would do so for ever
    webhook.may_answer.clear()
    url = f"http://127.0.0.1:{webhook.port}/"
    auth = await start_auth(audit_forward_url=url, audit_forward_secret=secret)
    await asyncio.to_thread(fill, auth.database, 1)
    assert await asyncio.to_thread(webhook.has_come.wait, SECONDS)
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*(auth.login() for _ in range(10)))
    webhook.may_answer.set()


async def test_what_is_appended_goes_by_itself(
    start_auth: Callable[..., Any], fill: Callable[..., None], collector: Collector
) -> None:
    auth = await start_auth(audit_forward_url=f"syslog+tcp://127.0.0.1:{collector.port}")
    for number in range(1, 4):
        await asyncio.to_thread(fill, auth.database, 1)
        async with asyncio.timeout(SECONDS):
            while len(collector.messages) < number:
                await asyncio.sleep(0.01)
    assert [message.event["sequence"] for message in collector.messages] == [1, 2, 3]


async def test_the_waits_for_a_receiver_that_is_away_grow(
    to_webhook: Callable[..., Forwarder], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    one = to_webhook()
    rounds = [Round(more=False, failure="away")] * 8 + [Round(more=True, failure=""), Round(more=False, failure="away")]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 9:
            raise StopAsyncIteration

    monkeypatch.setattr(one, "forward", iter(rounds).__next__)
    monkeypatch.setattr(forwarder.asyncio, "sleep", sleep)
    with pytest.raises((StopAsyncIteration, RuntimeError)):
        await one.run()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 1]


def test_how_far_it_is_behind_is_told(
    database: Database,
    fill: Callable[..., None],
    to_webhook: Callable[..., Forwarder],
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarder, "LATE_SECONDS", 1e-9)
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()
    one = to_webhook(metrics=ForwardingMetrics(registry))
    drain(one)
    fill(database, 3)
    webhook.statuses = [500]
    one.forward()
    assert registry.get_sample_value("espalier_audit_forward_waiting_events") == 3
    assert (registry.get_sample_value("espalier_audit_forward_lag_seconds") or 0) > 0
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage() == "audit events wait for their destination"
    fields = line.__dict__["fields"]
    assert fields["destination"] == f"http://127.0.0.1:{webhook.port}"
    assert (fields["waiting"], fields["reason"]) == (3, "it answered with status 500")
    drain(one)
    assert registry.get_sample_value("espalier_audit_forward_waiting_events") == 0
    assert registry.get_sample_value("espalier_audit_forward_lag_seconds") == 0
    assert "audit events reach their destination again" in caplog.text
