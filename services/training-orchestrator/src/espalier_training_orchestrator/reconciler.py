"""Brings what is observed to what is asked for: at most one idempotent action for a run and round.

Level-triggered: every round reads the database and asks the launcher; nothing depends on having seen an event. What is
to be done is written down before it is done, so this process may be killed anywhere: the next one goes on, and finds
processes that live as its own (boot adoption is the ordinary round).

    QUEUED    resources free → STARTING with a new attempt row
    STARTING  never submitted → submit; its runner registers → RUNNING (attempts/service.py)
    STOPPING  the runner hears it by heartbeat; deaf → SIGTERM; past the deadline → kill
    ended     gather metrics, logs, checkpoints → terminal state → the launcher forgets it
"""

import functools
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy.exc import InterfaceError, OperationalError

from espalier_common.db import Database, utc_now
from espalier_common.errors import EspalierError
from espalier_common.rounds import IDLE_SECONDS, go_round
from espalier_common.storable import storable
from espalier_common.telemetry import get_logger
from espalier_training_orchestrator.launchers import Launcher
from espalier_training_orchestrator.locks import single_flight
from espalier_training_orchestrator.runs import repository
from espalier_training_orchestrator.runs.accounts import RunAccounts
from espalier_training_orchestrator.runs.admission import Admission
from espalier_training_orchestrator.runs.launching import Launching
from espalier_training_orchestrator.runs.lifecycle import RECONCILER, Lifecycle
from espalier_training_orchestrator.runs.models import Attempt, Run, RunState, StopMode
from espalier_training_orchestrator.runs.verdict import Verdict, never_launched, verdict
from espalier_training_orchestrator.spec import Observation, Phase
from espalier_training_orchestrator.storage import Storage
from espalier_training_orchestrator.telemetry import repository as telemetry
from espalier_training_orchestrator.telemetry.harvest import Harvest

DEAF_SECONDS = 5.0
MAX_PAUSE = 30.0
GATHERINGS = 5

_log = get_logger(__name__)


class Reconciler:
    """One for all runs; two replicas take turns."""

    def __init__(
        self,
        database: Database,
        *,
        launcher: Launcher,
        lifecycle: Lifecycle,
        admission: Admission,
        launching: Launching,
        harvest: Harvest,
        storage: Storage,
        silence_seconds: float,
        pause: float,
    ) -> None:
        self._database = database
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._admission = admission
        self._launching = launching
        self._harvest = harvest
        self._storage = storage
        self._silence_seconds = silence_seconds
        self._pause = pause
        self._accounts = RunAccounts(database, lifecycle=lifecycle, harvest=harvest)
        self._asked: set[str] = set()
        self._failed_gatherings: Counter[str] = Counter()
        self._pauses: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Rounds for ever."""
        await go_round(self.tick, database=self._database, topic=RECONCILER)

    def tick(self) -> float:
        """One round over everything; gives the seconds until the next."""
        with single_flight(self._database.engine, "reconciler") as mine:
            if not mine:
                return IDLE_SECONDS
            with self._database.transaction() as session:
                active = list(repository.active_run_ids(session))
                ended = [attempt.id for attempt in repository.unreleased_attempts(session)]
            for run_id in active:
                self._guarded(run_id, functools.partial(self._reconcile, run_id))
            for attempt_id in ended:
                self._guarded(attempt_id, functools.partial(self._release, attempt_id))
            queued = self._admission.admit()
        return self._pause if active or ended or queued else IDLE_SECONDS

    def _guarded(self, key: str, act: Callable[[], None]) -> None:
        """One that fails waits longer and longer and keeps no other from going on."""
        due, pause = self._pauses.get(key, (0.0, 0.0))
        if time.monotonic() < due:
            return
        try:
            act()
            self._pauses.pop(key, None)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # whatever it is, it is about this one
            pause = min(max(1.0, 2 * pause), MAX_PAUSE)
            self._pauses[key] = (time.monotonic() + pause, pause)
            _log.exception("could not be reconciled, trying again", key=key, pause_seconds=pause)

    def _reconcile(self, run_id: str) -> None:
        with self._database.transaction() as session:
            run = repository.find_run_by_id(session, run_id)
            attempt = repository.find_attempt(session, run_id, run.attempt) if run else None
        if run is None or attempt is None or not run.state.occupies:
            return
        seen = self._launcher.observe(attempt.name, attempt.directory)
        if seen is None:
            self._launch(run, attempt)
        elif seen.phase.is_terminal:
            self._finish(run, attempt, seen)
        else:
            self._accounts.take(attempt, seen)
            if run.state is RunState.STOPPING:
                self._press(run, attempt)
            else:
                self._tell_silence(run, attempt, seen)

    def _launch(self, run: Run, attempt: Attempt) -> None:
        if run.state is RunState.STOPPING:
            self._settle(run, attempt, never_launched(run), None)
            return
        if attempt.fence:
            message = "Everything of the attempt is gone from the machine, its directory too."
            lost = Verdict(state=RunState.FAILED, reason="ATTEMPT_LOST", message=message)
            self._settle(run, attempt, lost, None)
            return
        try:
            self._launching.submit(run, attempt)
        except EspalierError as error:
            failed = Verdict(state=RunState.FAILED, reason=error.reason, message=error.message)
            self._settle(run, attempt, failed, None)

    def _finish(self, run: Run, attempt: Attempt, seen: Observation) -> None:
        self._gather(run, attempt)
        with self._database.transaction() as session:
            measured = telemetry.last_step(session, run.id, attempt.number)
        attempt.last_step = max(attempt.last_step, measured, _step_told(seen))
        attempt.tokens = max(attempt.tokens, self._harvest.tokens(attempt))
        has_model = seen.phase is Phase.SUCCEEDED and self._launching.has_model(run.id)
        self._settle(run, attempt, verdict(run, attempt, seen, has_model=has_model), seen)

    def _gather(self, run: Run, attempt: Attempt) -> None:
        """Files that cannot be read keep a run from its end for a while, not for ever."""
        try:
            self._harvest.gather(run, attempt)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            self._failed_gatherings[attempt.name] += 1
            if self._failed_gatherings[attempt.name] < GATHERINGS:
                raise
            _log.exception("metrics and logs could not all be gathered", run_id=run.id, attempt=attempt.number)
        self._failed_gatherings.pop(attempt.name, None)

    def _settle(self, run: Run, attempt: Attempt, end: Verdict, seen: Observation | None) -> None:
        """The one place where a run ends."""
        with self._database.transaction() as session:
            current = repository.lock_run(session, run.id)
            ending = repository.find_attempt(session, run.id, attempt.number)
            if current is None or ending is None or ending.ended_at is not None:
                return
            if current.state is not run.state or current.stop_mode is not run.stop_mode:
                return  # asked to stop meanwhile: the next round judges by that
            reason, message = storable(end.reason), storable(end.message)
            ending.end(end.state, reason=reason, message=message, at=self._accounts.close(ending, seen))
            ending.last_step = max(ending.last_step, attempt.last_step)
            ending.tokens = max(ending.tokens, attempt.tokens)
            current.step = max(current.step, ending.last_step)
            if seen is not None:
                ending.exit_code, ending.log_tail = seen.exit_code, [storable(line) for line in seen.log_tail]
            self._lifecycle.move(session, current, end.state, reason=reason, message=message)
            if end.state in (RunState.STOPPED, RunState.FAILED):
                current.resumable = repository.has_checkpoint(session, run.id)
            if end.state is RunState.SUCCEEDED:
                current.summary = telemetry.last_values(session, run.id)
                current.model_bytes = self._launching.model_bytes(run.id)
                self._storage.tell(session, current.owner_id)
        self._asked.discard(attempt.name)
        _log.info("attempt ended", run_id=run.id, attempt=attempt.number, state=end.state.value, reason=end.reason)

    def _press(self, run: Run, attempt: Attempt) -> None:
        """Makes sure that a stop that was asked for happens."""
        now = utc_now()
        if run.stop_forced or (run.stop_mode is StopMode.NOW and run.stop_deadline and now > run.stop_deadline):
            self._launcher.cancel(attempt.name, attempt.directory, now=True)
        elif run.stop_deadline and now > run.stop_deadline:
            self._force_stop(run)
        elif run.stop_mode is StopMode.SAVE and self._is_deaf(attempt) and attempt.name not in self._asked:
            # Once: to a runner a second SIGTERM means "at once".
            self._asked.add(attempt.name)
            self._launcher.cancel(attempt.name, attempt.directory, now=False)

    def _force_stop(self, run: Run) -> None:
        with self._database.transaction() as session:
            current = repository.lock_run(session, run.id)
            if current is None or current.state is not RunState.STOPPING or current.stop_mode is not StopMode.SAVE:
                return
            current.stop_forced = True
            message = "Saving takes longer than allowed: the training is ended by force."
            self._lifecycle.note(session, current, reason="STOP_TIMEOUT", message=message)

    def _is_deaf(self, attempt: Attempt) -> bool:
        return attempt.heartbeat_at is None or _seconds_since(attempt) > DEAF_SECONDS

    def _tell_silence(self, run: Run, attempt: Attempt, seen: Observation) -> None:
        """Silence is only told: as long as the launcher sees it alive, it lives."""
        silent = _seconds_since(attempt)
        if silent < self._silence_seconds or seen.phase is Phase.STARTING:
            return
        message = f"The training lives, but has not reported for {round(silent / 10) * 10} s."
        with self._database.transaction() as session:
            current = repository.lock_run(session, run.id)
            if current is not None and current.state is run.state:
                self._lifecycle.say(session, current, message)

    def _release(self, attempt_id: str) -> None:
        with self._database.transaction() as session:
            attempt = repository.find_attempt_by_id(session, attempt_id)
        if attempt is None:
            return
        self._launcher.forget(attempt.name, attempt.directory)
        with self._database.transaction() as session:
            session.merge(attempt).released = True


def _seconds_since(attempt: Attempt) -> float:
    return (utc_now() - (attempt.heartbeat_at or attempt.created_at)).total_seconds()


def _step_told(seen: Observation) -> int:
    """The last step as the attempt itself says; between two metric points nobody else knows."""
    step = (seen.result or {}).get("step")
    return step if isinstance(step, int) else 0
