"""The NATS edge: what auth tells. It listens to nothing."""

from sqlalchemy.orm import Session

from espalier.auth.v1 import events_pb2
from espalier_auth.models import UserChanged
from espalier_common.db import utc_now
from espalier_common.outbox import record
from espalier_common.rpc.timestamps import timestamp


def publish(session: Session, event: UserChanged) -> None:
    """Puts the event into the outbox, with the transaction that it tells of."""
    user = event.user
    message = events_pb2.UserChanged(
        user_id=user.id,
        username=user.username,
        roles=user.roles,
        disabled=user.disabled,
        changed_by=event.changed_by,
        change_time=timestamp(utc_now()),
    )
    record(session, message, key=user.id)
