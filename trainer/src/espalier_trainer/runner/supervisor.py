"""One attempt from its first moment to its result: register, start the ranks, watch, stop when asked, tell the end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.runner.cause import RankExit
from espalier_trainer.runner.checkpoint_watch import CheckpointWatch
from espalier_trainer.runner.metrics_file import ProgressMeter
from espalier_trainer.runner.orchestrator_link import OrchestratorLink, Speaker
from espalier_trainer.runner.ranks import RankPlan, Ranks
from espalier_trainer.runner.result import Result, conclude
from espalier_trainer.runner.settings import Plan, RunnerSettings
from espalier_trainer.runner.stop import StopWish
from espalier_trainer.runner.telemetry import LogSource, MetricsSource, Source, TelemetryPublisher

# Training waits no longer than this for an orchestrator that is away.
REGISTER_SECONDS = 10.0
# A run that is thrown away has nothing to finish: the current step at most.
DISCARD_SECONDS = 5.0
LAST_WORD_SECONDS = 2.0
FLUSH_SECONDS = 4.0
FLUSH_SECONDS_WHILE_AWAY = 1.5
# Shares of the grace: first the ranks are told by a signal, then they are killed; the rest is for telling the end.
_TERMINATE_AT = 0.8
_KILL_AT = 0.9

_log = logging.getLogger(__name__)


class Supervisor:
    """Carries one attempt out. Make it inside a running event loop."""

    def __init__(self, settings: RunnerSettings, plan: Plan, *, command: Sequence[str], lock: int) -> None:
        self._settings = settings
        self._plan = plan
        self._command = command
        self._lock = lock
        self._wish = StopWish(settings.directory / "stop")
        self._progress = ProgressMeter(settings.directory / "metrics.jsonl")
        self._checkpoints = CheckpointWatch(plan.output_dir / "checkpoints", plan.attempt)
        self._link = self._open_link()
        self._publisher = self._open_publisher()
        self._ranks: Ranks | None = None

    async def run(self) -> Result:
        """The attempt. Whatever it starts is gone when it returns."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._wish.signal)
        beating = asyncio.create_task(self._link.run()) if self._link else None
        publishing = asyncio.create_task(self._publish()) if self._publisher else None
        try:
            result = await self._attempt()
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
            await self._say_goodbye(publishing)
        return result

    async def _attempt(self) -> Result:
        await self._wait_for_registration()
        if self._link is not None and self._link.refusal:
            return Result(
                exit_code=ExitCode.INFRASTRUCTURE,
                reason="INFRASTRUCTURE",
                message=f"The orchestrator refuses this attempt: {self._link.refusal}",
            )
        exits = [] if self._wish.asked.is_set() else await self._run_ranks()
        self._progress.refresh()
        return conclude(
            exits,
            wish=self._wish,
            checkpoint=self._checkpoints.newest,
            # Between two metric points it trained on; the checkpoint says how far.
            step=max(self._progress.step, self._checkpoints.newest_step),
            disk_full=self._ranks is not None and self._ranks.disk_full,
            preempted=self._wish.by_signal and self._settings.sigterm_means == "preemption",
        )

    async def _wait_for_registration(self) -> None:
        if self._link is None:
            return
        await _any_within(REGISTER_SECONDS, self._link.settled, self._wish.asked)

    async def _run_ranks(self) -> list[RankExit]:
        self._ranks = Ranks(
            RankPlan(
                command=self._command,
                directory=self._settings.directory,
                processes=self._plan.processes,
                threads=self._plan.threads,
                fence=self._link.fence if self._link else 0,
                lock=self._lock,
            )
        )
        _log.info("starting %d ranks", self._plan.processes)
        enforcing = asyncio.create_task(self._enforce_stop(self._ranks))
        try:
            return await self._ranks.run()
        finally:
            enforcing.cancel()

    async def _enforce_stop(self, ranks: Ranks) -> None:
        """Lets a stop take its time, and no more."""
        wish, grace = self._wish, self._settings.grace_seconds
        await wish.asked.wait()
        _log.info("stopping, %s", wish.mode)
        if not await _any_within(grace * _TERMINATE_AT, wish.impatient, wish.discarded):
            _log.warning("the ranks have not stopped yet; sending SIGTERM")
            ranks.terminate()
            await _any_within(grace * (_KILL_AT - _TERMINATE_AT), wish.impatient, wish.discarded)
        if wish.discarded.is_set():
            await _any_within(DISCARD_SECONDS, wish.impatient)
        _log.warning("the ranks have not stopped in time; killing them")
        ranks.kill()

    async def _publish(self) -> None:
        assert self._publisher is not None  # noqa: S101
        try:
            await self._publisher.run()
        except Exception:  # telemetry is a copy; the training goes on without it
            _log.exception("telemetry has ended")

    async def _say_goodbye(self, publishing: asyncio.Task[None] | None) -> None:
        async def flush() -> None:
            if publishing is None or self._publisher is None:
                return
            self._publisher.finish()
            seconds = FLUSH_SECONDS_WHILE_AWAY if self._publisher.is_away else FLUSH_SECONDS
            _, late = await asyncio.wait([publishing], timeout=seconds)
            if late:
                _log.warning("the message bus did not take the last telemetry; it stays in the attempt's files")
                publishing.cancel()
                await asyncio.wait([publishing], timeout=1)

        async def last_word() -> None:
            if self._link is not None:
                await self._link.last_word(LAST_WORD_SECONDS)
                await self._link.close()

        await asyncio.gather(flush(), last_word())

    def _open_link(self) -> OrchestratorLink | None:
        if not self._settings.orchestrator:
            return None
        return OrchestratorLink(
            self._settings.orchestrator,
            Speaker(run_id=self._plan.run_id, attempt=self._plan.attempt, token=self._settings.token),
            progress=self._progress,
            checkpoints=self._checkpoints,
            on_stop=self._wish.ask,
        )

    def _open_publisher(self) -> TelemetryPublisher | None:
        if not self._settings.nats_url:
            return None
        logs = self._settings.directory / "logs"
        sources: list[Source] = [MetricsSource(self._settings.directory / "metrics.jsonl", self._plan.attempt)]
        sources += [LogSource(logs / f"rank-{rank}.log", rank) for rank in range(self._plan.processes)]
        sources.append(LogSource(logs / "runner.log", -1))
        return TelemetryPublisher(
            self._settings.nats_url, run_id=self._plan.run_id, attempt=self._plan.attempt, sources=sources
        )


async def _any_within(seconds: float, *events: asyncio.Event) -> bool:
    """Waits for the first of the events; False when the time is over before."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    done, late = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    return bool(done)
