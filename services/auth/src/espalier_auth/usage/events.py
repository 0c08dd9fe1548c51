"""The NATS edge of usage: what other services report goes into the ledger, each report once."""

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC

from google.protobuf.message import DecodeError, Message
from sqlalchemy.orm import Session

from espalier.auth.v1 import usage_pb2
from espalier.chat.v1 import events_pb2 as chat_events_pb2
from espalier.chat.v1 import service_pb2 as chat_pb2
from espalier_auth.usage.models import Kind
from espalier_auth.usage.service import Use, take_into_ledger
from espalier_common.bus import Bus, Consumer, Event
from espalier_common.db import Database
from espalier_common.identifiers import is_uuid
from espalier_common.storable import storable
from espalier_common.telemetry import get_logger

DURABLE = "auth-usage"
MAX_NAME = 200  # characters of a user, model or source: indexes hold no longer ones together
USAGE_RECORDED = usage_pb2.UsageRecorded.DESCRIPTOR.full_name
ANSWER_FINISHED = chat_events_pb2.AnswerFinished.DESCRIPTOR.full_name

_log = get_logger(__name__)


def usage_consumer(bus: Bus, database: Database) -> Consumer:
    """Takes reports into the ledger, in batches."""
    return Consumer(
        bus, database, durable=DURABLE, subjects=(USAGE_RECORDED, ANSWER_FINISHED), batch_handler=take_events
    )


def take_events(session: Session, events: Sequence[Event]) -> None:
    """Takes what the events tell into the ledger; one that makes no sense is dropped with a word in the log."""
    take_into_ledger(session, [use for event in events for use in _uses(event)])


def _uses(event: Event) -> list[Use]:
    read: dict[str, tuple[type[Message], Callable[..., Iterator[Use]]]] = {
        USAGE_RECORDED: (usage_pb2.UsageRecorded, _recorded),
        ANSWER_FINISHED: (chat_events_pb2.AnswerFinished, _answered),
    }
    message_type, uses = read[event.subject]
    try:
        found = list(uses(event.parse(message_type)))
    except (DecodeError, ValueError, OverflowError) as error:
        _log.warning("usage without a sense", subject=event.subject, message_id=event.message_id, error=repr(error))
        return []
    return found


def _recorded(message: usage_pb2.UsageRecorded) -> Iterator[Use]:
    if not is_uuid(message.id) or not math.isfinite(message.amount) or message.amount < 0:
        raise ValueError("id or amount")
    name = usage_pb2.UsageKind.Name(message.kind).removeprefix("USAGE_KIND_")
    wait = message.queue_wait.ToTimedelta().total_seconds() if message.HasField("queue_wait") else None
    yield Use(
        id=message.id,
        kind=Kind(name) if message.kind else None,
        amount=message.amount,
        user_id=storable(message.user_id)[:MAX_NAME],
        at=message.time.ToDatetime(UTC),
        model=storable(message.model)[:MAX_NAME],
        source=storable(message.source)[:MAX_NAME],
        reference=storable(message.reference),
        succeeded=None if message.unfinished else message.succeeded,
        queue_wait=wait,
        reservation_id=storable(message.reservation_id),
        by_model=_by_model(message) if message.kind == usage_pb2.USAGE_KIND_STORED_BYTES else None,
    )


def _by_model(message: usage_pb2.UsageRecorded) -> dict[str, float]:
    """The whole amount by model; what the report names no model for is of its own one, which is none as a rule."""
    found: dict[str, float] = {}
    for model, amount in message.by_model.items():
        if not math.isfinite(amount) or amount < 0:
            raise ValueError("amount of a model")
        name = storable(model)[:MAX_NAME]
        found[name] = found.get(name, 0.0) + amount
    rest = message.amount - sum(found.values())
    if rest < 0:
        raise ValueError("more by model than in all")
    own = storable(message.model)[:MAX_NAME]
    if rest or not found:
        found[own] = found.get(own, 0.0) + rest
    return found


def _answered(message: chat_events_pb2.AnswerFinished) -> Iterator[Use]:
    amounts = {
        Kind.REQUESTS: 1.0,
        Kind.TOKENS_IN: float(message.prompt_tokens),
        Kind.TOKENS_OUT: float(message.completion_tokens),
    }
    for kind, amount in amounts.items():
        if amount <= 0:
            continue  # the model server did not tell
        yield Use(
            id=str(uuid.uuid5(uuid.UUID(message.message_id), kind)),
            kind=kind,
            amount=amount,
            user_id=storable(message.owner_id)[:MAX_NAME],
            at=message.finish_time.ToDatetime(UTC),
            model=(storable(message.model) or message.deployment_id)[:MAX_NAME],
            source=storable(message.source)[:MAX_NAME] or "chat",
            reference=message.message_id,
            succeeded=message.state != chat_pb2.MESSAGE_STATE_FAILED,
            reservation_id=message.message_id,
            estimated=message.estimated and kind is not Kind.REQUESTS,
        )
