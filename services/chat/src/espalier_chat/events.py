"""The NATS edge: what chat tells. It listens to nothing."""

from sqlalchemy.orm import Session

from espalier.chat.v1 import events_pb2
from espalier_chat.models import AnswerEnded, CompletionEnded
from espalier_chat.wire import STATES
from espalier_common.outbox import record
from espalier_common.rpc.timestamps import timestamp

SOURCE = "chat"
API = "api"


def publish(session: Session, event: AnswerEnded) -> None:
    """Puts the event into the outbox, with the transaction that it tells of."""
    message = event.message
    finished = events_pb2.AnswerFinished(
        message_id=message.id,
        session_id=message.session_id,
        deployment_id=event.deployment_id,
        owner_id=event.owner_id,
        state=STATES[message.state],
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        finish_time=timestamp(event.at),
        model=message.model,
        source=SOURCE,
        estimated=event.estimated,
    )
    record(session, finished, key=message.id)


def publish_completion(session: Session, event: CompletionEnded) -> None:
    """The same of a completion over the OpenAI API."""
    finished = events_pb2.AnswerFinished(
        message_id=event.id,
        deployment_id=event.deployment_id,
        owner_id=event.owner_id,
        state=STATES[event.state],
        prompt_tokens=event.prompt_tokens,
        completion_tokens=event.completion_tokens,
        finish_time=timestamp(event.at),
        model=event.model,
        source=API,
        estimated=event.estimated,
    )
    record(session, finished, key=event.id)
