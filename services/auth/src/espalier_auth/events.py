"""The NATS edge: what auth tells. It listens to nothing."""

from sqlalchemy.orm import Session

from espalier.auth.v1 import audit_pb2, events_pb2
from espalier_auth.models import User, UserChanged
from espalier_common.audit.masking import to_json
from espalier_common.audit.recording import subject_of
from espalier_common.db import new_id, utc_now
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


def tell_rescue(session: Session, user: User, *, action: str) -> None:
    """Tells the audit log, with the change, what a command on the machine did: nobody is signed in there, so it names
    no actor.
    """
    event = audit_pb2.AuditEvent(
        id=new_id(),
        service="auth",
        action=action,
        target=f"users/{user.id}",
        result=audit_pb2.AUDIT_RESULT_DONE,
        time=timestamp(utc_now()),
        after=to_json({f"users/{user.id}": {"username": user.username, "by": "a command on the machine"}}),
    )
    record(session, event, key=event.id, subject=subject_of("auth"))
