"""What prompt tells the other services, through the outbox. It listens to nobody."""

from sqlalchemy.orm import Session

from espalier.prompt.v1 import events_pb2
from espalier_common import outbox
from espalier_prompt.models import Prompt, PromptVersion


def record_version_created(session: Session, prompt: Prompt, version: PromptVersion) -> None:
    """Announces a new version; its text stays here."""
    message = events_pb2.PromptVersionCreated(
        prompt_id=prompt.id, name=prompt.name, version=version.version, owner_id=prompt.owner_id
    )
    message.create_time.FromDatetime(version.created_at)
    outbox.record(session, message, key=prompt.id)
