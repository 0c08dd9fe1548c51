"""What auth tells the other services, through the outbox. It listens to nobody."""

from sqlalchemy.orm import Session

from espalier.auth.v1 import events_pb2
from espalier_auth.models import User
from espalier_common import outbox
from espalier_common.db import utc_now


def record_user_changed(session: Session, user: User, *, changed_by: str) -> None:
    """Announces the user's roles and disabled mark as they are now; `changed_by` is empty for the platform itself."""
    message = events_pb2.UserChanged(
        user_id=user.id, username=user.username, roles=user.roles, disabled=user.disabled, changed_by=changed_by
    )
    message.change_time.FromDatetime(utc_now())
    outbox.record(session, message, key=user.id)
