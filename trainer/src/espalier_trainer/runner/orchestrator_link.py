"""The runner's word with the training orchestrator: one registration, then heartbeats, come what may."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from espalier.training_orchestrator.v1 import telemetry_pb2 as pb
from espalier.training_orchestrator.v1.run_pb2 import Progress
from espalier.training_orchestrator.v1.telemetry_pb2_grpc import RunnerServiceStub
from espalier_trainer.runner.checkpoint_watch import CheckpointWatch
from espalier_trainer.runner.metrics_file import ProgressMeter
from espalier_trainer.runner.stop import StopMode

_CALL_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_DEFAULT_PACE = 2.0
# Told this for so long, the attempt is not wanted any more; a service that only starts up says such things briefly.
_PATIENCE_SECONDS = 60.0

_REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ABORTED,
    }
)
# The orchestrator does not know this registration: its database was set back, or a newer registration took over.
_REGISTER_AGAIN = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED})
_COMMANDS = {
    pb.RUNNER_COMMAND_SAVE_AND_EXIT: StopMode.SAVE,
    pb.RUNNER_COMMAND_DISCARD_AND_EXIT: StopMode.DISCARD,
}
# An orchestrator that was away is found again within seconds, not minutes.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Who speaks."""

    run_id: str
    attempt: int
    token: str


class OrchestratorLink:
    """Registers, then beats; hears what is asked of the attempt and hands it to `on_stop`."""

    def __init__(
        self,
        address: str,
        speaker: Speaker,
        *,
        progress: ProgressMeter,
        checkpoints: CheckpointWatch,
        on_stop: Callable[[StopMode], None],
    ) -> None:
        self.fence = 0
        self.refusal = ""
        """Why the orchestrator will not have this attempt; empty: it did not refuse."""
        self.settled = asyncio.Event()
        """The first registration was answered, whatever the answer."""
        self._speaker = speaker
        self._progress = progress
        self._checkpoints = checkpoints
        self._on_stop = on_stop
        self._pace = _DEFAULT_PACE
        self._registered = False
        self._refused_since: float | None = None
        self._away = False
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = RunnerServiceStub(self._channel)

    async def run(self) -> None:
        """Speaks until it is cancelled."""
        while True:
            try:
                if self._registered:
                    await self._beat()
                else:
                    await self._register()
            except grpc.aio.AioRpcError as error:
                self._note(error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._back()
                await asyncio.sleep(self._pace)

    async def last_word(self, seconds: float) -> None:
        """One more heartbeat with the final state, within that time or not at all."""
        if self._registered:
            try:
                await asyncio.wait_for(self._beat(), seconds)
            except (grpc.aio.AioRpcError, TimeoutError):
                _log.info("the orchestrator did not hear the last heartbeat; it finds the result in the directory")

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def _register(self) -> None:
        answer = await self._stub.RegisterAttempt(
            pb.RegisterAttemptRequest(
                run_id=self._speaker.run_id,
                attempt=self._speaker.attempt,
                attempt_token=self._speaker.token,
                host=socket.gethostname()[:253],
                pid=os.getpid(),
            ),
            timeout=_CALL_SECONDS,
        )
        self.fence = answer.fence
        self._pace = min(max(answer.heartbeat_seconds or _DEFAULT_PACE, 0.1), 30.0)
        self._registered = True
        self.settled.set()
        _log.info("registered with the orchestrator, fence %d", self.fence)

    async def _beat(self) -> None:
        self._progress.refresh()
        checkpoints = self._checkpoints.unacknowledged()
        answer = await self._stub.Heartbeat(
            pb.HeartbeatRequest(
                run_id=self._speaker.run_id,
                attempt=self._speaker.attempt,
                attempt_token=self._speaker.token,
                fence=self.fence,
                progress=_progress_message(self._progress),
                checkpoints=checkpoints,
            ),
            timeout=_CALL_SECONDS,
        )
        self._checkpoints.acknowledge(checkpoints)
        if answer.command in _COMMANDS:
            self._on_stop(_COMMANDS[answer.command])

    def _note(self, error: grpc.aio.AioRpcError) -> None:
        code = error.code()
        if not self._away:
            _log.warning("the orchestrator does not answer (%s: %s); trying on", code.name, error.details())
        self._away = True
        if code not in _REFUSALS:
            self._refused_since = None
            return
        now = asyncio.get_running_loop().time()
        if not self.settled.is_set():
            self.refusal = error.details() or code.name
            self.settled.set()
        elif code in _REGISTER_AGAIN:
            self._registered = False
        if self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > _PATIENCE_SECONDS:
            _log.error("the orchestrator does not want this attempt any more: %s", error.details())
            self._on_stop(StopMode.SAVE)

    def _back(self) -> None:
        if self._away:
            _log.info("the orchestrator answers again")
        self._away, self._refused_since = False, None


def _progress_message(meter: ProgressMeter) -> Progress:
    message = Progress()
    message.step = meter.step
    message.total_steps = meter.total_steps
    message.epoch = meter.epoch
    message.loss = meter.loss
    message.tokens_per_second = meter.tokens_per_second
    if meter.eta_seconds is not None:
        message.eta.FromMilliseconds(int(meter.eta_seconds * 1000))
    return message
