"""The NATS edge: what the registry tells, and the one thing it listens to."""

from collections.abc import Sequence

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from espalier.model_registry.v1 import events_pb2
from espalier.training_orchestrator.v1 import events_pb2 as orchestrator_events_pb2
from espalier_common.bus import Bus, Consumer, Event
from espalier_common.db import Database
from espalier_common.outbox import record
from espalier_common.rpc.timestamps import timestamp
from espalier_model_registry.models import DeploymentChanged, DomainEvent
from espalier_model_registry.service import wake_by_workload
from espalier_model_registry.wire import STATES, version_to_proto

WORKLOAD_STATE_CHANGED: str = orchestrator_events_pb2.WorkloadStateChanged.DESCRIPTOR.full_name


def publish(session: Session, event: DomainEvent) -> None:
    """Puts a domain event into the outbox, with the transaction that it tells of."""
    if isinstance(event, DeploymentChanged):
        record(session, _deployment_changed(event), key=event.deployment_id)
    else:
        version = event.version
        message = events_pb2.ModelVersionRegistered(
            version=version_to_proto(version), register_time=timestamp(version.created_at)
        )
        record(session, message, key=version.id)


def _deployment_changed(event: DeploymentChanged) -> Message:
    message = events_pb2.DeploymentStateChanged(
        deployment_id=event.deployment_id,
        to=STATES[event.after],
        reason=event.reason,
        change_time=timestamp(event.at),
    )
    # `from` is a word of Python.
    setattr(message, "from", STATES[event.before])
    return message


def workload_consumer(bus: Bus, database: Database) -> Consumer:
    """Wakes the reconciler when a model server changed; what is to be done it finds out for itself."""
    return Consumer(
        bus,
        database,
        durable="model-registry-workloads",
        subjects=[WORKLOAD_STATE_CHANGED],
        batch_handler=on_workloads_changed,
    )


def on_workloads_changed(session: Session, events: Sequence[Event]) -> None:
    """Workloads that are no deployment's are none of ours."""
    changes = (event.parse(orchestrator_events_pb2.WorkloadStateChanged) for event in events)
    # In one order, or two replicas with some of the same would wait for each other.
    for name in sorted({changed.workload.name for changed in changes}):
        wake_by_workload(session, name)
