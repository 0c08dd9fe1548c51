"""What no call tells the audit log: a command on the machine removed a second factor."""

from sqlalchemy.orm import Session

from espalier.auth.v1 import audit_pb2
from espalier_auth.models import User
from espalier_common.audit.masking import to_json
from espalier_common.audit.recording import subject_of
from espalier_common.db import new_id
from espalier_common.outbox import record

_ACTION = "espalier.auth.v1.SecondFactorService/RemoveUserSecondFactor"


def tell_removal(session: Session, user: User) -> None:
    """Puts the event into the outbox, with the removal. Nobody is signed in on a machine: it names no actor."""
    event = audit_pb2.AuditEvent(
        id=new_id(),
        service="auth",
        action=_ACTION,
        target=f"users/{user.id}",
        result=audit_pb2.AUDIT_RESULT_DONE,
        after=to_json({f"users/{user.id}": {"username": user.username, "removed_by": "a command on the machine"}}),
    )
    event.time.GetCurrentTime()
    record(session, event, key=event.id, subject=subject_of("auth"))
