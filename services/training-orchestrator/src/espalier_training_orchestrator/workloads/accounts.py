"""Tells the ledger of use for how long servers have their places, while they run and whatever way they end.

What was told is written down with the report, in one transaction, so none is told twice. A server outlives this
process, and goes on signing its lock: what it used meanwhile is told when this process is back.
"""

from datetime import datetime, timedelta

from espalier_common.db import Database, utc_now
from espalier_training_orchestrator.changes import Publish
from espalier_training_orchestrator.occupancy import last_sign, quarter_of
from espalier_training_orchestrator.spec import Observation
from espalier_training_orchestrator.workloads import repository
from espalier_training_orchestrator.workloads.models import Workload, WorkloadState

NOTED = timedelta(minutes=1)
"""So often it is written down that a server lives: should its directory be lost, no more of its time is."""


class WorkloadAccounts:
    """Asked in each round, before anything is done about what was seen."""

    def __init__(self, database: Database, *, publish: Publish) -> None:
        self._database = database
        self._publish = publish

    def take(self, workload: Workload, seen: Observation | None) -> None:
        """Tells what is due; writes nothing while nothing is."""
        now = utc_now()
        if workload.state is WorkloadState.FAILED or not _is_due(workload, seen, now):
            return
        with self._database.transaction() as session:
            row = repository.lock_workload(session, workload.id)
            if row is None:
                return
            if seen is None:
                # Its directory is gone: it is launched anew, and what it used ends with the last sight of it.
                until, since, row.seen_at = row.seen_at, row.used_until or row.created_at, None
            elif seen.phase.is_terminal:
                until, since = last_sign(seen.ended_at, row.seen_at, now=now), _since(row, seen)
            else:
                row.seen_at = now
                until, since = quarter_of(now), _since(row, seen)
            used = row.use(since=since, until=until) if until is not None and row.owner_id else None
            if used is not None:
                self._publish(session, used)


def _is_due(workload: Workload, seen: Observation | None, now: datetime) -> bool:
    if seen is None:
        return workload.seen_at is not None
    if seen.phase.is_terminal or workload.seen_at is None or now - workload.seen_at >= NOTED:
        return True
    return quarter_of(now) > (workload.used_until or workload.seen_at)


def _since(workload: Workload, seen: Observation) -> datetime:
    return seen.started_at or workload.created_at
