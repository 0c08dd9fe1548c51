"""Tells the ledger of use, while an attempt goes on, for how long it has its ranks and what it has trained on.

The rest is told with its end. What was told is written down with the report, in one transaction: none is told twice,
and after a crash of this process the next one goes on from there.
"""

from datetime import datetime

from espalier_common.db import Database, utc_now
from espalier_training_orchestrator.occupancy import last_sign, quarter_of
from espalier_training_orchestrator.runs import repository
from espalier_training_orchestrator.runs.lifecycle import Lifecycle
from espalier_training_orchestrator.runs.models import Attempt
from espalier_training_orchestrator.spec import Observation
from espalier_training_orchestrator.telemetry.harvest import Harvest


class RunAccounts:
    """Asked in each round for attempts that are seen alive, and when they end."""

    def __init__(self, database: Database, *, lifecycle: Lifecycle, harvest: Harvest) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._harvest = harvest

    def take(self, attempt: Attempt, seen: Observation) -> None:
        """Tells what an attempt that lives has used up to the last quarter of an hour, once it is over."""
        until, since = quarter_of(utc_now()), attempt.used_until or _launched(attempt, seen)
        if since >= until:
            return
        tokens = self._harvest.tokens(attempt)
        with self._database.transaction() as session:
            run = repository.lock_run(session, attempt.run_id)
            row = repository.find_attempt(session, attempt.run_id, attempt.number)
            if run is None or row is None or row.ended_at is not None or (row.used_until or since) >= until:
                return
            row.launched_at = row.launched_at or _launched(row, seen)
            row.tokens = max(row.tokens, tokens)
            self._lifecycle.use(session, run, row, until)

    def close(self, attempt: Attempt, seen: Observation | None) -> datetime:
        """Writes down from when it ran, and gives until when: by the last sign of life that it gave."""
        now = utc_now()
        if seen is None and not attempt.fence:
            return now  # it never ran
        attempt.launched_at = attempt.launched_at or (_launched(attempt, seen) if seen else attempt.created_at)
        sign = last_sign(seen.ended_at if seen else None, attempt.heartbeat_at, now=now)
        return max(sign, attempt.used_until or attempt.launched_at)


def _launched(attempt: Attempt, seen: Observation) -> datetime:
    return attempt.launched_at or seen.started_at or attempt.created_at
