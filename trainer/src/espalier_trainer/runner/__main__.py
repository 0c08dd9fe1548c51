"""`python -m espalier_trainer.runner [--rank-command COMMAND …]`; everything else comes by environment and run.yaml."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from espalier_trainer.errors import TrainerError
from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.lock import take_lock
from espalier_trainer.runner.result import Result, earlier_exit_code, reserve, write_result
from espalier_trainer.runner.settings import RUN_FILE, RunnerSettings, read_plan, read_settings

_log = logging.getLogger("espalier_trainer.runner")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the attempt and gives the exit code that says how it ended."""
    parser = argparse.ArgumentParser(prog="espalier_trainer.runner", description=__doc__)
    parser.add_argument("--rank-command", type=shlex.split, help="what each rank runs (default: the training)")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(os.environ)
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    lock = take_lock(settings.directory / "runner.lock", os.environ)
    if lock is None:
        print("another runner is at work in this directory", file=sys.stderr)  # noqa: T201
        return ExitCode.INFRASTRUCTURE
    earlier = earlier_exit_code(settings.directory)
    if earlier is not None:
        print("this attempt has ended before", file=sys.stderr)  # noqa: T201
        return earlier
    _open_log(settings.directory / "logs" / "runner.log")
    command = options.rank_command or [sys.executable, "-P", "-m", "espalier_trainer.train", RUN_FILE]
    result = _run(settings, command=command, lock=lock)
    _log.info("%s (exit code %d)", result.message, result.exit_code)
    try:
        write_result(settings.directory, result)
    except OSError as error:
        _log.error("result.json cannot be written: %s", error.strerror)
    return result.exit_code


def _run(settings: RunnerSettings, *, command: Sequence[str], lock: int) -> Result:
    """The attempt; whatever goes wrong becomes a result, never a traceback alone."""

    async def supervise() -> Result:
        from espalier_trainer.runner.supervisor import Supervisor

        return await Supervisor(settings, plan, command=command, lock=lock).run()

    reserve(settings.directory)
    try:
        plan = read_plan(settings.directory / RUN_FILE)
        return asyncio.run(supervise())
    except TrainerError as error:
        return Result(exit_code=error.exit_code, reason="INVALID_CONFIGURATION", message=str(error))
    except OSError as error:
        _log.exception("the runner cannot go on")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = "the disk is full; free some space, then start the run again"
            return Result(exit_code=ExitCode.INFRASTRUCTURE, reason="DISK_FULL", message=message)
        return Result(exit_code=ExitCode.INFRASTRUCTURE, reason="INFRASTRUCTURE", message=str(error))
    except Exception as error:
        _log.exception("a defect of the runner")
        message = f"the runner failed: {type(error).__name__}: {error}"
        return Result(exit_code=ExitCode.INFRASTRUCTURE, reason="INFRASTRUCTURE", message=message)


def _open_log(path: Path) -> None:
    """The runner's lines go to its log, and to stderr where that is another file (a cluster keeps both)."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if not os.path.samestat(os.fstat(2), path.stat()):
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
    except OSError as error:
        print(f"{path} cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201
    form = logging.Formatter("%(asctime)s runner: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(form)
    logging.raiseExceptions = False  # a full disk must not fill stderr with the logger's own troubles
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.getLogger("nats").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
