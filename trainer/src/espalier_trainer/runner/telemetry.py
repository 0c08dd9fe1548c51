"""Telemetry on its way to JetStream: the lines of metrics.jsonl and of the logs, each from its own offset.

The files are the truth, the bus is a copy: while it is away nothing is lost and nobody waits, and then it goes on where
it stopped. The message id is made of the offset, so a batch that went out twice counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from espalier.training_orchestrator.v1.run_pb2 import MetricPoint
from espalier.training_orchestrator.v1.telemetry_pb2 import TelemetryBatch
from espalier_trainer.runner.metrics_file import GrowingFile, Point, parse_point

_PAUSE = 0.5
_RETRY = 1.0
_CONFIRM_SECONDS = 5.0
_LOG_BYTES = 128 << 10
_METRIC_BYTES = 64 << 10

_log = logging.getLogger(__name__)


class Source(Protocol):
    """A file that telemetry is made of."""

    name: str

    def next_batch(self, *, is_over: bool) -> tuple[int, TelemetryBatch] | None:
        """The next piece with its offset; None when there is nothing new. `is_over`: the file grows no more."""


class MetricsSource:
    """metrics.jsonl."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.name = "metrics"
        self._file = GrowingFile(path)
        self._attempt = attempt

    def next_batch(self, *, is_over: bool) -> tuple[int, TelemetryBatch] | None:  # noqa: ARG002
        """The next points."""
        lines = self._file.read(_METRIC_BYTES)
        if not lines:
            return None
        batch = TelemetryBatch()
        for line in lines:
            point = parse_point(line.data)
            if point is None:
                _log.warning("metrics.jsonl, byte %d: not a metric point", line.offset)
                continue
            batch.points.append(_point_message(point, self._attempt))
            batch.total_steps = point.total_steps or batch.total_steps
        return lines[0].offset, batch


class LogSource:
    """The log of a rank; -1 is the runner's own."""

    def __init__(self, path: Path, rank: int) -> None:
        self.name = f"log-{rank}" if rank >= 0 else "log-runner"
        self._path = path
        self._rank = rank
        self._offset = 0
        self._ended = False

    def next_batch(self, *, is_over: bool) -> tuple[int, TelemetryBatch] | None:
        """The next whole lines; at the end of a log that is over, its rest and the word that nothing follows."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_LOG_BYTES)
        except OSError:
            data = b""
        more = len(data) == _LOG_BYTES
        if more or not is_over:
            whole = data[: data.rfind(b"\n") + 1]
            data = whole or (data if more else b"")
        ends = is_over and not more
        if self._ended or not (data or ends):
            return None
        offset, self._ended = self._offset, ends
        self._offset += len(data)
        batch = TelemetryBatch()
        batch.logs.add(rank=self._rank, offset=offset, data=data, end=ends)
        return offset, batch


class TelemetryPublisher:
    """Publishes what the sources have, for as long as it runs."""

    def __init__(self, url: str, *, run_id: str, attempt: int, sources: Sequence[Source]) -> None:
        self._url = url
        self._run_id = run_id
        self._attempt = attempt
        self._sources = sources
        self._over = asyncio.Event()
        self._away = True

    @property
    def is_away(self) -> bool:
        """Whether the bus does not answer at the moment."""
        return self._away

    async def run(self) -> None:
        """Publishes until everything is out after `finish`, or until it is cancelled."""
        import nats

        client = await nats.connect(
            self._url,
            name="runner",
            inbox_prefix=f"_INBOX.{_user_of(self._url)}".encode(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            connect_timeout=3,
            error_cb=_quiet,
        )
        try:
            self._away = False
            jetstream = client.jetstream()
            while True:
                is_over = self._over.is_set()
                sent = [await self._drain(jetstream, source, is_over=is_over) for source in self._sources]
                if is_over:
                    return
                if not any(sent):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._over.wait(), _PAUSE)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 1)

    def finish(self) -> None:
        """Nothing is added to the files any more: `run` returns once all is out."""
        self._over.set()

    async def _drain(self, jetstream: Any, source: Source, *, is_over: bool) -> bool:
        sent = False
        while (found := source.next_batch(is_over=is_over)) is not None:
            offset, batch = found
            await self._publish(jetstream, batch, message_id=self._message_id(source, offset, batch))
            sent = True
        return sent

    def _message_id(self, source: Source, offset: int, batch: TelemetryBatch) -> str:
        # The last word of a log may carry no bytes; it must not pass for the piece that begins at the same offset.
        last = "/end" if any(chunk.end and not chunk.data for chunk in batch.logs) else ""
        return f"{self._run_id}/{self._attempt}/{source.name}/{offset}{last}"

    async def _publish(self, jetstream: Any, batch: TelemetryBatch, *, message_id: str) -> None:
        """Publishes one batch, the very same again and again until it is confirmed."""
        batch.run_id, batch.attempt = self._run_id, self._attempt
        batch.send_time.FromNanoseconds(time.time_ns())
        payload = batch.SerializeToString()
        subject = f"{TelemetryBatch.DESCRIPTOR.full_name}.{self._run_id}"
        while True:
            try:
                await jetstream.publish(subject, payload, timeout=_CONFIRM_SECONDS, headers={"Nats-Msg-Id": message_id})
            except Exception as error:  # nats-py raises a dozen unrelated types while a server goes and comes
                if not self._away:
                    _log.warning("the message bus is away (%s); telemetry waits in its files", _named(error))
                self._away = True
                await asyncio.sleep(_RETRY)
            else:
                if self._away:
                    _log.info("the message bus is back")
                self._away = False
                return


def _point_message(point: Point, attempt: int) -> MetricPoint:
    message = MetricPoint(step=point.step, values=point.values, attempt=attempt, epoch=point.epoch)
    message.time.FromNanoseconds(int(point.time * 1e9))
    return message


def _user_of(url: str) -> str:
    """A user of the bus may listen below its own inbox alone."""
    return unquote(urlsplit(url).username or "runner")


async def _quiet(error: Exception) -> None:
    _log.debug("message bus: %s", _named(error))


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__
