"""Follows a run or a log until its end. The database is read in threads; between reads a stream sleeps until woken."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from espalier.training_orchestrator.v1 import run_pb2, run_service_pb2
from espalier_common.db import Database
from espalier_common.errors import FieldViolation, InvalidArgument
from espalier_common.identity import Principal
from espalier_training_orchestrator.runs.messages import point_to_proto, run_to_proto
from espalier_training_orchestrator.runs.service import Runs
from espalier_training_orchestrator.telemetry import repository as telemetry
from espalier_training_orchestrator.telemetry.logs import LogPiece, read_log

POINTS_AT_ONCE = 500
POLL_SECONDS = 3.0  # another replica may have taken what we wait for
MAX_CURSOR = 2**63 - 1


@dataclass(frozen=True)
class _Look:
    """One reading of a run: points that are new, and whether more wait or nothing follows."""

    run: run_pb2.Run
    points: list[run_pb2.MetricPoint]
    cursor: int
    more: bool
    over: bool


@dataclass(frozen=True)
class _LogLook:
    attempt: int
    piece: LogPiece
    more: bool


class Streams:
    """What WatchRun and WatchLogs send. A slow reader slows down its own stream alone."""

    def __init__(self, database: Database, *, runs: Runs) -> None:
        self._database = database
        self._runs = runs

    async def run(
        self, principal: Principal, run_id: str, cursor: str
    ) -> AsyncIterator[run_service_pb2.WatchRunResponse]:
        """The run now, at each change, and each point after the cursor, until it has ended."""
        position = _position(cursor)
        last: run_pb2.Run | None = None
        with self._database.subscribe(run_id) as subscription:
            while True:
                look = await asyncio.to_thread(self._look, principal, run_id, position)
                position = look.cursor
                if look.points or look.run != last:
                    last = look.run
                    yield run_service_pb2.WatchRunResponse(cursor=str(position), run=look.run, points=look.points)
                if look.over:
                    return
                if not look.more:
                    await subscription.wait(POLL_SECONDS)

    async def log(
        self, principal: Principal, request: run_service_pb2.WatchLogsRequest
    ) -> AsyncIterator[run_service_pb2.LogChunk]:
        """The log from an offset on, until its attempt has ended."""
        number, offset = request.attempt, int(request.offset)
        with self._database.subscribe(request.run_id) as subscription:
            while True:
                look = await asyncio.to_thread(self._log_look, principal, request.run_id, number, request.rank, offset)
                number, offset = look.attempt, look.piece.next_offset
                if look.piece.data or look.piece.end:
                    yield log_to_proto(look.piece, attempt=number, rank=request.rank)
                if look.piece.end:
                    return
                if not look.piece.data:
                    await subscription.wait(POLL_SECONDS)

    def _look(self, principal: Principal, run_id: str, cursor: int) -> _Look:
        with self._database.transaction() as session:
            # The run first: what is stored of it after this reading is found by the next.
            run = self._runs.get(session, principal, run_id)
            points = telemetry.points_after(session, run_id, cursor, limit=POINTS_AT_ONCE)
            more = len(points) == POINTS_AT_ONCE
            return _Look(
                run=run_to_proto(run),
                points=[point_to_proto(point) for point in points],
                cursor=points[-1].id if points else cursor,
                more=more,
                over=run.state.is_terminal and not more,
            )

    def _log_look(self, principal: Principal, run_id: str, number: int, rank: int, offset: int) -> _LogLook:
        with self._database.transaction() as session:
            run = self._runs.get(session, principal, run_id)
            attempt = self._runs.attempt(session, run, number)
            piece = read_log(session, attempt, rank=rank, offset=offset, limit=0)
            return _LogLook(attempt=attempt.number, piece=piece, more=bool(piece.data))


def log_to_proto(piece: LogPiece, *, attempt: int, rank: int) -> run_service_pb2.LogChunk:
    """The message of a piece of a log."""
    return run_service_pb2.LogChunk(
        attempt=attempt,
        rank=rank,
        offset=piece.offset,
        next_offset=piece.next_offset,
        text=piece.text,
        end=piece.end,
    )


def _position(cursor: str) -> int:
    position = int(cursor or 0)
    if position > MAX_CURSOR:
        violation = FieldViolation("cursor", "is no cursor of this run", "INVALID")
        raise InvalidArgument("The cursor is no cursor of this run.", violations=[violation])
    return position
