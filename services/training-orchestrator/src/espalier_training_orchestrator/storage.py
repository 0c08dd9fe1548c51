"""What users keep in the artifact store: told to the ledger of use whenever it changes.

Content that two versions share lies there once and counts for each: who deletes one keeps the other whole.
"""

from sqlalchemy.orm import Session

from espalier_common.db import new_id, utc_now
from espalier_training_orchestrator.changes import Limits, Publish, StorageChanged
from espalier_training_orchestrator.datasets import repository as datasets
from espalier_training_orchestrator.runs import repository as runs

HOLD_SECONDS = 600.0  # until the new amount has arrived at the ledger


class Storage:
    """Bytes by owner: dataset versions, checkpoints and finished models."""

    def __init__(self, *, limits: Limits, publish: Publish) -> None:
        self._limits = limits
        self._publish = publish

    def reserve(self, owner_id: str, size_bytes: int) -> str:
        """Holds room for what is about to be kept; gives the id for `tell`. Raises ResourceExhausted, Unavailable."""
        reservation_id = new_id()
        amounts = {"STORED_BYTES": float(size_bytes)}
        self._limits.reserve(reservation_id, user_id=owner_id, amounts=amounts, seconds=HOLD_SECONDS)
        return reservation_id

    def tell(self, session: Session, owner_id: str, *, reservation_id: str = "") -> None:
        """Tells the ledger how much it is now."""
        session.flush()
        total = datasets.stored_bytes(session, owner_id) + runs.stored_bytes(session, owner_id)
        changed = StorageChanged(owner_id=owner_id, stored_bytes=total, at=utc_now(), reservation_id=reservation_id)
        self._publish(session, changed)
