"""The NATS edge: what the registry tells, and the one thing it listens to."""

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
        handler=on_workload_changed,
    )


def on_workload_changed(session: Session, event: Event) -> None:
    """Applied once each; workloads that are no deployment's are none of ours."""
    changed = event.parse(orchestrator_events_pb2.WorkloadStateChanged)
    wake_by_workload(session, changed.workload.name)
