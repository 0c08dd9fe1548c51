"""The idempotent side of a consumer: effects and the memory of what was applied, in one transaction."""

import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Text, bindparam, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_common.db import Database, UtcDateTime, new_id, utc_now
from espalier_common.storable import storable
from espalier_common.tables import dead_letters, processed_messages
from espalier_common.telemetry import get_logger

if TYPE_CHECKING:
    from espalier_common.bus import Event

_log = get_logger(__name__)


class Inbox:
    """Applies events of one consumer to one database. Blocks; used from threads."""

    def __init__(
        self, database: Database, *, consumer: str, handler: Callable[[Session, Sequence["Event"]], None]
    ) -> None:
        self._database = database
        self._consumer = consumer
        self._handler = handler
        self._last_error = ""

    def apply(self, events: Sequence["Event"]) -> bool:
        """Applies those not yet applied. False, and nothing is changed, when the handler or the database fails."""
        if not events:  # a fetch that ended without a message
            return True
        try:
            with self._database.transaction() as session:
                if fresh := self._claim(session, events):
                    self._handler(session, fresh)
        except Exception as error:
            self._last_error = "".join(traceback.format_exception(error))[-8000:]
            _log.exception("event could not be applied", consumer=self._consumer, subjects=_subjects(events))
            return False
        return True

    def bury(self, event: "Event") -> bool:
        """Keeps an event that failed for good, with its last error. False when even that fails."""
        row = {
            "id": new_id(),
            "consumer": self._consumer,
            "message_id": event.message_id,
            "subject": event.subject,
            "payload": event.payload,
            "headers": event.headers,
            "error": storable(self._last_error),
            "created_at": utc_now(),
        }
        try:
            with self._database.transaction() as session:
                session.execute(insert(dead_letters).values(row))
        except Exception:
            _log.exception("event could not be kept as dead letter", consumer=self._consumer)
            return False
        _log.error("event given up", consumer=self._consumer, subject=event.subject, message_id=event.message_id)
        return True

    def prune(self, older_than: timedelta) -> None:
        """Forgets ids that the streams cannot deliver again."""
        with self._database.transaction() as session:
            session.execute(
                delete(processed_messages).where(
                    processed_messages.c.consumer == self._consumer,
                    processed_messages.c.processed_at < utc_now() - older_than,
                )
            )

    def _claim(self, session: Session, events: Sequence["Event"]) -> list["Event"]:
        # In one order, or two replicas with the same events would wait for each other.
        given = {"consumer": self._consumer, "ids": sorted({event.message_id for event in events}), "now": utc_now()}
        fresh = set(session.scalars(_claiming(), given))
        unique = {event.message_id: event for event in events if event.message_id in fresh}
        return list(unique.values())


@cache
def _claiming() -> Any:
    given = func.unnest(cast(bindparam("ids"), ARRAY(Text))).column_valued("message_id")
    rows = select(bindparam("consumer"), given, bindparam("now", type_=UtcDateTime))
    columns = ["consumer", "message_id", "processed_at"]
    claimed = insert(processed_messages).from_select(columns, rows).on_conflict_do_nothing()
    return claimed.returning(processed_messages.c.message_id)


def _subjects(events: Sequence["Event"]) -> list[str]:
    return sorted({event.subject for event in events})
