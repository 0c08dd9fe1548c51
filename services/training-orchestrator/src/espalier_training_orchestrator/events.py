"""The NATS edge: telemetry in, domain events out through the outbox."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
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
from espalier_training_orchestrator.occupancy import Piece
from espalier_training_orchestrator.runs.models import RunMoved, RunUsed
from espalier_training_orchestrator.telemetry.intake import MAX_STEP, Batch, Intake, wire_number
from espalier_training_orchestrator.telemetry.repository import Measured, Printed
from espalier_training_orchestrator.wire import enum_value
from espalier_training_orchestrator.workloads.models import WorkloadUsed
from espalier_training_orchestrator.workloads.rpc import workload_to_proto

TRAINING = "training"
SERVING = "serving"
DURABLE = "training-orchestrator-telemetry"

_log = get_logger(__name__)


def publish(session: Session, change: Change) -> None:
    """Stores a domain event with the running transaction; the relay publishes it after the commit."""
    if isinstance(change, RunMoved):
        record(session, _run_state_changed(change), key=change.run_id)
    elif isinstance(change, RunUsed):
        for report in _run_used(change):
            record(session, report, key=change.run_id)
    elif isinstance(change, WorkloadUsed):
        for report in _served(change):
            record(session, report, key=change.name)
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
    """Its tokens, and its seconds; the last of them end what it held, and tell how the attempt went."""
    whole = usage_pb2.UsageRecorded(
        id=new_id(),
        user_id=change.owner_id,
        model=change.model,
        source=TRAINING,
        reference=change.run_id,
        time=timestamp(change.at),
        succeeded=change.succeeded,
    )
    if change.tokens:
        yield _but(
            whole,
            id=_id(change.attempt_id, "TOKENS_IN", change.at),
            kind=usage_pb2.USAGE_KIND_TOKENS_IN,
            amount=change.tokens,
            time=timestamp(change.pieces[-1].start if change.pieces else change.at),
            unfinished=change.goes_on,
        )
    told = list(_seconds(whole, change.attempt_id, change.pieces, device=change.device, places=change.ranks))
    if not change.goes_on:
        # Where nothing was launched, what was held ends all the same.
        last = told.pop() if told else whole
        if last.kind:
            last.queue_wait.FromMilliseconds(round(change.queue_wait * 1000))
        told.append(_but(last, unfinished=False, succeeded=change.succeeded, reservation_id=change.reservation_id))
    yield from told


def _served(change: WorkloadUsed) -> Iterator[usage_pb2.UsageRecorded]:
    whole = usage_pb2.UsageRecorded(user_id=change.owner_id, model=change.model, source=SERVING, reference=change.name)
    return _seconds(whole, change.launch_id, change.pieces, device=change.device, places=change.places)


def _seconds(
    whole: usage_pb2.UsageRecorded, launch_id: str, pieces: Sequence[Piece], *, device: str, places: int
) -> Iterator[usage_pb2.UsageRecorded]:
    """A report for each piece, of a use that goes on."""
    name = "GPU_SECONDS" if device == "cuda" else "CPU_SECONDS"
    for piece in pieces:
        yield _but(
            whole,
            id=_id(launch_id, name, piece.start),
            kind=usage_pb2.UsageKind.Value(f"USAGE_KIND_{name}"),
            amount=places * piece.seconds,
            time=timestamp(piece.start),
            unfinished=True,
        )


def _but(message: usage_pb2.UsageRecorded, **changes: Any) -> usage_pb2.UsageRecorded:
    """The same with other values."""
    found: Any = usage_pb2.UsageRecorded()
    found.CopyFrom(message)
    for name in changes:
        found.ClearField(name)  # an empty value would not be merged
    found.MergeFrom(usage_pb2.UsageRecorded(**changes))
    changed: usage_pb2.UsageRecorded = found
    return changed


def _id(launch_id: str, kind: str, moment: datetime) -> str:
    """Made of what it tells of, so that it counts once however often it is told."""
    return str(uuid5(UUID(launch_id), f"{kind}/{moment.isoformat()}"))


def _storage_changed(change: StorageChanged) -> usage_pb2.UsageRecorded:
    return usage_pb2.UsageRecorded(
        id=new_id(),
        kind=usage_pb2.USAGE_KIND_STORED_BYTES,
        amount=change.stored_bytes,
        user_id=change.owner_id,
        source=TRAINING,
        time=timestamp(change.at),
        succeeded=True,
        reservation_id=change.reservation_id,
        by_model=change.by_model,
    )
