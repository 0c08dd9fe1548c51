"""One call as the audit log sees it, from its beginning to its end."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.orm import Session

from espalier.auth.v1 import audit_pb2
from espalier_common import outbox
from espalier_common.audit.changes import Changes
from espalier_common.audit.masking import MASK, masked, masked_message, to_json
from espalier_common.audit.rule import AuditRule
from espalier_common.db import new_id, utc_now
from espalier_common.errors import EspalierError
from espalier_common.identity import Principal, find_principal
from espalier_common.rpc.client import current_client
from espalier_common.rpc.context import current_request_id
from espalier_common.storable import storable

DONE, REFUSED, FAILED = (
    audit_pb2.AUDIT_RESULT_DONE,
    audit_pb2.AUDIT_RESULT_REFUSED,
    audit_pb2.AUDIT_RESULT_FAILED,
)
REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"})
# A wrong request has changed nothing and was not refused for who sent it.
UNTOLD = frozenset({"INVALID_ARGUMENT", "UNAVAILABLE"})
TYPED_NAMES = frozenset({"username", "login"})
_HELD_ROW = "espalier_audit_row"
_ASIDE = "espalier_audit_aside"
_DONE = "espalier_audit_done"
_WRITTEN = "espalier_audit_written"


def subject_of(service: str) -> str:
    """The subject under which a service tells the audit log."""
    return f"espalier.{service.replace('-', '_')}.audit"


def note_before(state: Mapping[str, Any]) -> None:
    """Tells the audit log how things stood before the call being served, where the ORM does not see it: a bulk update.

    `state` maps a name such as "users/<id>" to values; secrets are masked. Does nothing outside a call.
    """
    if (recording := running_var.get()) is not None:
        recording.changes.before.update(masked(state))


def note_after(state: Mapping[str, Any]) -> None:
    """As `note_before`, how things stand after it."""
    if (recording := running_var.get()) is not None:
        recording.changes.after.update(masked(state))


def note_actor(id: str, name: str) -> None:
    """Tells the audit log who acts in a call that carries no token, once it is known: he who signs in."""
    if (recording := running_var.get()) is not None:
        recording.actor = (id, name)


def note_reason(reason: str) -> None:
    """Tells the audit log more than the caller learns of why he is refused. Such a refusal is never left out."""
    if (recording := running_var.get()) is not None:
        recording.reason = reason


def note_done(session: Session) -> None:
    """Tells the audit log that this transaction is the last of the call, and that with it the call is done.

    Its event then needs not be held, and is written once instead of twice. For what is called often.
    """
    session.info[_DONE] = True


def note_aside(session: Session) -> None:
    """Tells the audit log that what this transaction writes is only counted, and changes nothing that it is about."""
    session.info[_ASIDE] = True


running_var: ContextVar["Recording | None"] = ContextVar("espalier_recording", default=None)


class Recording:
    """What is known of a running call. A `Witness` of its transactions while it runs."""

    def __init__(self, rule: AuditRule, *, service: str, request: Message) -> None:
        self.rule = rule
        self.service = service
        self.address = ""
        self.changes = Changes()
        self.held_row = ""
        self.is_written = False
        self.time = utc_now()
        self.principal: Principal | None = None
        self.error: EspalierError | None = None
        self.answer: Message | None = None
        self.over = False
        self.actor: tuple[str, str] | None = None
        self.reason = ""
        self._id = ""
        self._request = request
        self._request_id = ""

    def flushed(self, session: Session) -> None:
        """Reads what the transaction changes."""
        if not self.over:
            self.changes.collect(session)

    def closing(self, session: Session) -> None:
        """Writes the event with the call's first transaction that changes anything, held until the call is over."""
        if self.over or self.held_row or self.is_written or session.info.get(_ASIDE):
            return
        session.flush()
        self.note_caller()
        if session.info.get(_DONE):
            outbox.record(session, self.event(), key=self._id, subject=subject_of(self.service))
            session.info[_WRITTEN] = True
        elif session.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")):
            row = outbox.record(session, self.event(), subject=subject_of(self.service), held=True)
            session.info[_HELD_ROW] = row

    def committed(self, session: Session) -> None:
        """The event is safe from now on, whatever becomes of the process."""
        self.held_row = session.info.get(_HELD_ROW, self.held_row)
        self.is_written = session.info.get(_WRITTEN, self.is_written)

    def note_caller(self) -> None:
        """Takes who calls, from where, out of the context of the running call."""
        self.principal = find_principal()
        self.address = current_client().address
        self._request_id = current_request_id()

    @property
    def is_told(self) -> bool:
        """Whether the call, as it ended, belongs into the audit log and is not there yet."""
        if self.is_written:
            return False
        if self.error is None:
            return self.rule.tells
        if self.held_row:
            return True
        if self.error.code in REFUSALS:
            # A limit that a service asks for is told by the call for which it asked.
            return self.error.code != "RESOURCE_EXHAUSTED" or self.rule.is_for_users
        return self.rule.tells and self.error.code not in UNTOLD

    def event(self) -> audit_pb2.AuditEvent:
        """The event as far as it is known."""
        self._id = self._id or new_id()
        event = audit_pb2.AuditEvent(
            id=self._id,
            service=self.service,
            action=self.rule.action,
            target=self.rule.target(self._request, self.answer),
            result=self._result(),
            reason=(self.reason or self.error.reason) if self.error else "",
            address=storable(self.address)[:100],
            request_id=self._request_id,
            before=to_json(self.changes.before),
            after=to_json(self._after()),
        )
        event.time.FromDatetime(self.time)
        if self.principal is not None:
            event.actor_id, event.actor_name = self.principal.subject, self.principal.name
            event.api_key_id = self.principal.api_key
        elif self.actor is not None:
            event.actor_id, event.actor_name = self.actor
        return event

    def _after(self) -> Any:
        """How things stand after the call; of one that changed nothing known, what it asked for."""
        # Of what was deleted nothing is left, so that nothing is told either.
        return self.changes.after_all() or (None if self.changes.has_removed else self._asked())

    def _asked(self) -> Any:
        """The request. What somebody gives as his name at a sign-in may be a password, typed into the wrong field."""
        asked = masked_message(self._request)
        if isinstance(asked, dict):
            named = self.actor[1] if self.actor else ""
            return {name: (named or MASK) if name in TYPED_NAMES else value for name, value in asked.items()}
        return asked

    def _result(self) -> "audit_pb2.AuditResult.ValueType":
        if self.error is None:
            return DONE
        return REFUSED if self.error.code in REFUSALS else FAILED
