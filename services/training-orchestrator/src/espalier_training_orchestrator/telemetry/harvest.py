"""Fills the gaps once an attempt is over: its files are the truth, the bus only carried copies.

Everything here is idempotent and may be cut off anywhere: it is simply done again.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from espalier_common.db import Database
from espalier_training_orchestrator.launchers import Launcher
from espalier_training_orchestrator.runs import repository as runs
from espalier_training_orchestrator.runs.ledger import CheckpointLedger
from espalier_training_orchestrator.runs.models import Attempt, Run
from espalier_training_orchestrator.telemetry import repository
from espalier_training_orchestrator.telemetry.intake import Batch, Intake, read_metrics
from espalier_training_orchestrator.telemetry.repository import Printed

POINTS_AT_ONCE = 2000
PIECE_BYTES = 256 << 10
RUNNER_RANK = -1
MAX_TOKENS = 1 << 53  # what a number of JSON holds exactly


class Harvest:
    """Brings metrics, logs and checkpoints of an ended attempt into the database."""

    def __init__(
        self, database: Database, *, launcher: Launcher, intake: Intake, ledger: CheckpointLedger, log_limit: int
    ) -> None:
        self._database = database
        self._launcher = launcher
        self._intake = intake
        self._ledger = ledger
        self._log_limit = log_limit

    def gather(self, run: Run, attempt: Attempt) -> None:
        """All three. Raises what the database and the disk raise; then it is done again later."""
        self._gather_metrics(attempt)
        for rank in range(RUNNER_RANK, run.world_size):
            self._gather_log(attempt, rank)
        self._gather_checkpoints(run)

    def tokens(self, attempt: Attempt) -> int:
        """Tokens that the attempt trained on itself: as its ranks counted, and what it measured or saved at least."""
        with self._database.transaction() as session:
            measured = repository.last_tokens(session, attempt.run_id, attempt.number)
        saved = self._ledger.tokens_saved(attempt.run_id, attempt.number)
        counted = _counted(Path(attempt.directory) / "counts")
        return max(counted, max(measured, saved) - attempt.tokens_before)

    def _gather_metrics(self, attempt: Attempt) -> None:
        points = read_metrics(Path(attempt.directory) / "metrics.jsonl")
        while some := list(islice(points, POINTS_AT_ONCE)):
            with self._database.transaction() as session:
                self._intake.take(session, [Batch(run_id=attempt.run_id, attempt=attempt.number, points=some)])

    def _gather_checkpoints(self, run: Run) -> None:
        with self._database.transaction() as session:
            known = runs.list_checkpoints(session, run.id)
        # Known ones are read whole when an attempt is to begin from them.
        trusted = {checkpoint.manifest_sha256 for checkpoint in known}
        whole = self._ledger.whole_on_disk(run, trusted=trusted, hashes=True)
        with self._database.transaction() as session:
            locked = runs.lock_run(session, run.id)
            if locked is not None:
                self._ledger.sync(session, locked, whole)

    def _gather_log(self, attempt: Attempt, rank: int) -> None:
        with self._database.transaction() as session:
            extents = repository.log_extents(session, attempt.run_id, attempt.number, rank=rank)
        for start, end in _holes(extents, self._log_limit):
            if not self._fill(attempt, rank=rank, start=start, end=end):
                return

    def _fill(self, attempt: Attempt, *, rank: int, start: int, end: int) -> bool:
        """Copies the bytes of one hole; False when the log ends before the hole does."""
        while start < end:
            limit = min(PIECE_BYTES, end - start)
            data = self._launcher.read_log(attempt.name, attempt.directory, rank=rank, offset=start, limit=limit)
            if not data:
                return False
            with self._database.transaction() as session:
                piece = Printed(rank=rank, offset=start, data=data)
                self._intake.take(session, [Batch(run_id=attempt.run_id, attempt=attempt.number, logs=[piece])])
            start += len(data)
        return True


def _counted(directory: Path) -> int:
    """What the ranks counted, each in a file of its own; 0 when they left none."""
    counts = 0
    for file in directory.glob("rank-*"):
        try:
            text = file.read_bytes()[:20].strip()
        except OSError:
            continue
        counts += int(text) if text.isdigit() else 0
    return counts if counts < MAX_TOKENS else 0


def _holes(extents: list[tuple[int, int]], limit: int) -> Iterator[tuple[int, int]]:
    """What the stored pieces leave open below the limit, the open end included."""
    position = 0
    for start, end in extents:
        if start > position:
            yield position, start
        position = max(position, end)
    if position < limit:
        yield position, limit
