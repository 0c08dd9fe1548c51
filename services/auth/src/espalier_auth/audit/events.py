"""The NATS edge of the audit log: what every service tells goes into the chain, each event once."""

from collections.abc import Sequence
from datetime import UTC
from functools import partial

from sqlalchemy.event import listen
from sqlalchemy.orm import Session

from espalier.auth.v1 import audit_pb2
from espalier_auth.audit.kept_head import KeptHead
from espalier_auth.audit.models import NewEvent, Result
from espalier_auth.audit.service import append
from espalier_common.bus import AUDIT, Bus, Consumer, Event
from espalier_common.db import Database
from espalier_common.identifiers import is_uuid
from espalier_common.storable import storable

DURABLE = "auth-audit"


def audit_consumer(bus: Bus, database: Database, kept_head: KeptHead) -> Consumer:
    """Appends what arrives, in batches and in the order of arrival."""
    take = partial(take_events, kept_head=kept_head)
    return Consumer(bus, database, durable=DURABLE, subjects=AUDIT.subjects, stream=AUDIT, batch_handler=take)


def take_events(session: Session, events: Sequence[Event], *, kept_head: KeptHead) -> None:
    """Appends the events. Raises ValueError for one that makes no sense; it is kept among the dead letters."""
    before, after = append(session, [_read(event) for event in events])
    if after != before:
        # At once, or the newest events could be removed before the next look, and their places taken.
        listen(session, "after_commit", lambda _: kept_head.advance(before, after), once=True)


def _read(event: Event) -> NewEvent:
    message = event.parse(audit_pb2.AuditEvent)
    if not is_uuid(message.id) or message.result == audit_pb2.AUDIT_RESULT_UNSPECIFIED:
        raise ValueError("an audit event without id or result")
    return NewEvent(
        id=message.id,
        time=message.time.ToDatetime(UTC) if message.HasField("time") else event.published_at,
        # The subject says who tells it: a service can publish under its own alone.
        service=event.subject.split(".")[1].replace("_", "-"),
        actor_id=storable(message.actor_id),
        actor_name=storable(message.actor_name),
        action=storable(message.action),
        target=storable(message.target),
        result=Result(audit_pb2.AuditResult.Name(message.result).removeprefix("AUDIT_RESULT_")),
        reason=storable(message.reason),
        address=storable(message.address),
        request_id=storable(message.request_id),
        before=storable(message.before),
        after=storable(message.after),
        api_key_id=storable(message.api_key_id),
    )
