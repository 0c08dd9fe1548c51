"""result.json: the last thing that a runner writes, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.runner.cause import RankExit, first_cause
from espalier_trainer.runner.stop import StopMode, StopWish

RESULT = "result.json"
_RESERVE = ".result.reserve"
_RESERVED_BYTES = 64 << 10
_TAIL_LINES = 40


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of the attempt."""

    exit_code: int
    reason: str
    message: str
    signal: str | None = None
    step: int = 0
    checkpoint: str | None = None
    """Directory of the newest complete checkpoint of the run."""
    log_tail: list[str] = field(default_factory=list)
    """Last lines of the rank that failed."""


def conclude(
    exits: Sequence[RankExit], *, wish: StopWish, checkpoint: Path | None, step: int, disk_full: bool, preempted: bool
) -> Result:
    """The result, from how the ranks ended (in that order) and from what was asked of them; `exits` may be empty."""
    saved = str(checkpoint) if checkpoint else None
    if any(end.is_failure for end in exits):
        cause = first_cause(exits, disk_full=disk_full)
        tail = next((end.tail for end in exits if end.rank == cause.rank), ())
        return Result(
            exit_code=cause.exit_code,
            reason=cause.reason,
            message=cause.message,
            signal=cause.signal,
            step=step,
            checkpoint=saved,
            log_tail=list(tail)[-_TAIL_LINES:],
        )
    if exits and all(end.code == ExitCode.FINISHED and not end.killed for end in exits):
        return Result(exit_code=0, reason="COMPLETED", message="The training is complete.", step=step, checkpoint=saved)
    code, reason, message = _stopped(exits, wish=wish, has_checkpoint=checkpoint is not None, preempted=preempted)
    return Result(exit_code=code, reason=reason, message=message, step=step, checkpoint=saved)


def _stopped(
    exits: Sequence[RankExit], *, wish: StopWish, has_checkpoint: bool, preempted: bool
) -> tuple[int, str, str]:
    if wish.mode is StopMode.DISCARD:
        return (
            ExitCode.DISCARDED,
            "STOPPED_WITHOUT_CHECKPOINT",
            "The training was stopped as asked, without saving.",
        )
    # A rank that hangs after the save takes nothing away from it.
    if any(end.killed for end in exits) and not any(end.code == ExitCode.STOPPED for end in exits):
        return (
            ExitCode.DISCARDED,
            "STOPPED_WITHOUT_CHECKPOINT",
            "The training did not save in time and was killed; what came after its last checkpoint is lost.",
        )
    if not has_checkpoint or any(end.code == ExitCode.DISCARDED for end in exits):
        return (
            ExitCode.DISCARDED,
            "STOPPED_WITHOUT_CHECKPOINT",
            "The training was stopped before it had saved a checkpoint.",
        )
    if preempted:
        return ExitCode.PREEMPTED, "PREEMPTED", "The training had to make room; its checkpoint is complete."
    return ExitCode.STOPPED, "STOPPED_BY_USER", "The training was stopped; its checkpoint is complete."


def reserve(directory: Path) -> None:
    """Sets space aside, so that the result can be told even when the disk has become full."""
    with contextlib.suppress(OSError):
        (directory / _RESERVE).write_bytes(b"\0" * _RESERVED_BYTES)


def write_result(directory: Path, result: Result) -> None:
    """Writes it atomically. Raises OSError when even the reserve does not help."""
    (directory / _RESERVE).unlink(missing_ok=True)
    temporary = directory / f".{RESULT}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(result), file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / RESULT)


def earlier_exit_code(directory: Path) -> int | None:
    """Exit code of an attempt that has ended before; None when it has not."""
    try:
        content = json.loads((directory / RESULT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return ExitCode.INFRASTRUCTURE
    code = content.get("exit_code") if isinstance(content, dict) else None
    return code if isinstance(code, int) else ExitCode.INFRASTRUCTURE
