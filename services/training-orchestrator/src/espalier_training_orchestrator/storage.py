"""What users keep in the artifact store: told to the ledger of use whenever it changes.

Content that two versions share lies there once and counts for each: who deletes one keeps the other whole.
"""

import asyncio

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from espalier_common.db import Database, new_id
from espalier_common.telemetry import get_logger
from espalier_training_orchestrator.changes import Limits, Publish, StorageChanged
from espalier_training_orchestrator.datasets import repository as datasets
from espalier_training_orchestrator.locks import wait_for_turn
from espalier_training_orchestrator.runs import repository as runs

HOLD_SECONDS = 600.0  # until the new amount has arrived at the ledger
INTERVAL = 86_400.0  # seconds

_log = get_logger(__name__)


class Storage:
    """Bytes by owner: dataset versions, checkpoints and finished models."""

    def __init__(self, database: Database, *, limits: Limits, publish: Publish) -> None:
        self._database = database
        self._limits = limits
        self._publish = publish

    def reserve(self, owner_id: str, size_bytes: int) -> str:
        """Holds room for what is about to be kept; gives the id for `tell`. Raises ResourceExhausted, Unavailable."""
        reservation_id = new_id()
        amounts = {"STORED_BYTES": float(size_bytes)}
        self._limits.reserve(reservation_id, user_id=owner_id, amounts=amounts, seconds=HOLD_SECONDS)
        return reservation_id

    def tell(self, session: Session, owner_id: str, *, reservation_id: str = "") -> None:
        """Tells the ledger how much it is now: all of it in one report, so that each is true without those before."""
        session.flush()
        # The newest report counts, so none may be made beside another that it does not see, nor by another clock.
        wait_for_turn(session, f"storage/{owner_id}")
        at = session.execute(select(func.clock_timestamp())).scalar_one()
        by_model = runs.stored_bytes(session, owner_id)
        changed = StorageChanged(
            owner_id=owner_id,
            stored_bytes=datasets.stored_bytes(session, owner_id) + sum(by_model.values()),
            by_model=by_model,
            at=at,
            reservation_id=reservation_id,
        )
        self._publish(session, changed)

    async def run(self) -> None:
        """Tells everybody's once a day and at the start, as it may be that an earlier release told less."""
        while True:
            try:
                await asyncio.to_thread(self.tell_everybody)
            except Exception:
                _log.exception("what users keep could not be told; each change tells it as well")
            await asyncio.sleep(INTERVAL)

    def tell_everybody(self) -> None:
        """Tells it of all who keep anything or did."""
        with self._database.transaction() as session:
            owners = datasets.owners_of_bytes(session) | runs.owners_of_bytes(session)
        for owner_id in sorted(owners):
            with self._database.transaction() as session:
                self.tell(session, owner_id)
