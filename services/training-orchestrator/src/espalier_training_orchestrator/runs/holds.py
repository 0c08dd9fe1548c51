"""What a run holds of its owner's limits: a place among the runs at the same time, from the queue to the end.

How long it will train nobody knows, so no seconds are held: it is refused when none are left. The first hold lasts for
minutes, so that one of a run that was never stored (this process died before it could be) frees itself soon; while the
run lives it is renewed, each time for an hour (docs/adr/0009).
"""

import asyncio

from espalier_common.db import Database
from espalier_common.errors import EspalierError, Unavailable
from espalier_common.telemetry import get_logger
from espalier_training_orchestrator.changes import Limits
from espalier_training_orchestrator.runs import repository
from espalier_training_orchestrator.runs.models import Run

FIRST_SECONDS = 300.0
HOLD_SECONDS = 3600.0
RENEW_SECONDS = 60.0

_log = get_logger(__name__)


class Holds:
    """Takes and renews them; RunUsed ends them, with the state of the run."""

    def __init__(self, database: Database, *, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    def take(self, run: Run) -> None:
        """Raises ResourceExhausted when a limit of the owner would be passed, Unavailable when nobody can tell."""
        self._reserve(run, FIRST_SECONDS)

    async def run(self) -> None:
        """Renews for ever."""
        while True:
            await asyncio.to_thread(self.renew)
            await asyncio.sleep(RENEW_SECONDS)

    def renew(self) -> None:
        """Renews what living runs hold. What runs is ended by no limit: a refusal is only logged."""
        with self._database.transaction() as session:
            living = [run for run in repository.live_runs(session) if run.reservation_id]
        for run in living:
            try:
                self._reserve(run, HOLD_SECONDS)
            except Unavailable as error:
                _log.warning("the holds of runs are renewed later", error=error.message)
                return  # nobody answers; each further question would wait for that again
            except EspalierError as error:
                _log.info("the hold of a run could not be renewed", run_id=run.id, error=error.message)

    def _reserve(self, run: Run, seconds: float) -> None:
        of_time = "GPU_SECONDS" if run.device == "cuda" else "CPU_SECONDS"
        amounts = {"CONCURRENT_RUNS": 1.0, of_time: 0.0, "STORED_BYTES": 0.0}
        self._limits.reserve(run.reservation_id, user_id=run.owner_id, amounts=amounts, seconds=seconds)
