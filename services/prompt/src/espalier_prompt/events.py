"""The NATS edge: what prompt tells. It listens to nothing."""

from sqlalchemy.orm import Session

from espalier.prompt.v1 import events_pb2
from espalier_common.outbox import record
from espalier_common.rpc.timestamps import timestamp
from espalier_prompt.models import PromptVersionCreated


def publish(session: Session, event: PromptVersionCreated) -> None:
    """Puts the event into the outbox, with the transaction that it tells of; the text stays here."""
    prompt, version = event.prompt, event.version
    message = events_pb2.PromptVersionCreated(
        prompt_id=prompt.id,
        name=prompt.name,
        version=version.version,
        owner_id=prompt.owner_id,
        create_time=timestamp(version.created_at),
    )
    record(session, message, key=prompt.id)
