"""The NATS edge: what eval tells. It listens to nothing."""

from sqlalchemy.orm import Session

from espalier.eval.v1 import events_pb2
from espalier_common.outbox import record
from espalier_common.rpc.timestamps import timestamp
from espalier_eval.models import EvaluationCreated


def publish(session: Session, event: EvaluationCreated) -> None:
    """Puts the event into the outbox, with the transaction that it tells of."""
    evaluation = event.evaluation
    message = events_pb2.EvaluationCreated(
        evaluation_id=evaluation.id,
        name=evaluation.name,
        score=evaluation.score,
        item_count=evaluation.item_count,
        owner_id=evaluation.owner_id,
        create_time=timestamp(evaluation.created_at),
    )
    record(session, message, key=evaluation.id)
