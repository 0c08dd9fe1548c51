"""The NATS edge: telemetry in, domain events out through the outbox."""

from collections.abc import Callable, Iterator, Sequence
from uuid import UUID, uuid5

from google.protobuf.message import DecodeError
from sqlalchemy.orm import Session

from espalier.auth.v1 import usage_pb2
from espalier.training_orchestrator.v1 import events_pb2, run_pb2, telemetry_pb2
from espalier_common.bus import TELEMETRY, Bus, Consumer, Event
from espalier_common.db import Database, new_id, utc_now
from espalier_common.outbox import record
from espalier_common.rpc.timestamps import timestamp
from espalier_common.storable import storable
from espalier_common.telemetry import get_logger
from espalier_training_orchestrator.changes import Change, StorageChanged
from espalier_training_orchestrator.runs.models import RunMoved, RunUsed
from espalier_training_orchestrator.telemetry.intake import MAX_STEP, Batch, Intake, wire_number
from espalier_training_orchestrator.telemetry.repository import Measured, Printed
from espalier_training_orchestrator.wire import enum_value
from espalier_training_orchestrator.workloads.rpc import workload_to_proto

SOURCE = "training"
DURABLE = "training-orchestrator-telemetry"

_log = get_logger(__name__)


def publish(session: Session, change: Change) -> None:
    """Stores a domain event with the running transaction; the relay publishes it after the commit."""
    if isinstance(change, RunMoved):
        record(session, _run_state_changed(change), key=change.run_id)
    elif isinstance(change, RunUsed):
        for report in _run_used(change):
            record(session, report, key=change.run_id)
    elif isinstance(change, StorageChanged):
        record(session, _storage_changed(change), key=change.owner_id)
    else:
        message = events_pb2.WorkloadStateChanged(workload=workload_to_proto(change), change_time=timestamp(change.at))
        record(session, message, key=change.name)


def telemetry_consumer(bus: Bus, database: Database, intake: Intake) -> Consumer:
    """Takes the attempts' telemetry into the database, in batches."""
    return Consumer(
        bus,
        database,
        durable=DURABLE,
        subjects=TELEMETRY.subjects,
        batch_handler=_handler(intake),
        stream=TELEMETRY,
    )


def _handler(intake: Intake) -> Callable[[Session, Sequence[Event]], None]:
    def take(session: Session, events: Sequence[Event]) -> None:
        intake.take(session, [batch for event in events if (batch := _batch(event)) is not None])

    return take


def _batch(event: Event) -> Batch | None:
    """The batch of a message; None for what no runner of ours sends, which is dropped with a word in the log."""
    try:
        message = event.parse(telemetry_pb2.TelemetryBatch)
    except DecodeError:
        message = telemetry_pb2.TelemetryBatch()
    # The subject is what the sender was allowed to publish under; the content must not speak for another run.
    if not message.run_id or not event.subject.endswith(f".{message.run_id}"):
        _log.warning("telemetry without a sense", subject=event.subject, bytes=len(event.payload))
        return None
    return Batch(
        run_id=message.run_id,
        attempt=message.attempt,
        points=[_measured(point) for point in message.points if 0 <= point.step <= MAX_STEP],
        logs=[Printed(rank=piece.rank, offset=piece.offset, data=piece.data) for piece in message.logs if piece.data],
        total_steps=message.total_steps,
    )


def _measured(point: run_pb2.MetricPoint) -> Measured:
    return Measured(
        step=point.step,
        epoch=point.epoch,
        at=point.time.ToDatetime(utc_now().tzinfo) if point.HasField("time") else utc_now(),
        values={storable(name): wire_number(value) for name, value in point.values.items()},
    )


def _run_state_changed(change: RunMoved) -> events_pb2.RunStateChanged:
    message = events_pb2.RunStateChanged(
        run_id=change.run_id,
        to=enum_value(run_pb2.RunState, "RUN_STATE", change.after),
        reason=change.reason,
        owner_id=change.owner_id,
        change_time=timestamp(change.at),
    )
    # `from` is a keyword of Python, so the field is set by its name.
    setattr(message, "from", enum_value(run_pb2.RunState, "RUN_STATE", change.before or ""))
    return message


def _run_used(change: RunUsed) -> Iterator[usage_pb2.UsageRecorded]:
    """Its seconds, which end what it held, and its tokens; ids made of the attempt's, so that each counts once."""
    message = usage_pb2.UsageRecorded(
        id=change.attempt_id or new_id(),
        user_id=change.owner_id,
        model=change.model,
        source=SOURCE,
        reference=change.run_id,
        time=timestamp(change.at),
        succeeded=change.succeeded,
        reservation_id=change.reservation_id,
    )
    if change.tokens:
        tokens = usage_pb2.UsageRecorded()
        tokens.CopyFrom(message)
        tokens.id, tokens.reservation_id = str(uuid5(UUID(change.attempt_id), "TOKENS_IN")), ""
        tokens.kind, tokens.amount = usage_pb2.USAGE_KIND_TOKENS_IN, change.tokens
        yield tokens
    if change.attempt_id:
        kinds = {"cuda": usage_pb2.USAGE_KIND_GPU_SECONDS, "cpu": usage_pb2.USAGE_KIND_CPU_SECONDS}
        message.kind, message.amount = kinds[change.device], change.rank_seconds
        message.queue_wait.FromMilliseconds(round(change.queue_wait * 1000))
    yield message


def _storage_changed(change: StorageChanged) -> usage_pb2.UsageRecorded:
    return usage_pb2.UsageRecorded(
        id=new_id(),
        kind=usage_pb2.USAGE_KIND_STORED_BYTES,
        amount=change.stored_bytes,
        user_id=change.owner_id,
        source=SOURCE,
        time=timestamp(change.at),
        succeeded=True,
        reservation_id=change.reservation_id,
    )
