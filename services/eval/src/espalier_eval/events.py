"""What eval tells the other services, through the outbox. It listens to nobody."""

from sqlalchemy.orm import Session

from espalier.eval.v1 import events_pb2
from espalier_common import outbox
from espalier_eval.models import Evaluation


def record_evaluation_created(session: Session, evaluation: Evaluation) -> None:
    """Announces the evaluation and its mean score."""
    message = events_pb2.EvaluationCreated(
        evaluation_id=evaluation.id,
        name=evaluation.name,
        score=evaluation.score,
        item_count=evaluation.item_count,
        owner_id=evaluation.owner_id,
    )
    message.create_time.FromDatetime(evaluation.created_at)
    outbox.record(session, message, key=evaluation.id)
