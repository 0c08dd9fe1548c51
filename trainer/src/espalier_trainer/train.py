"""`python -m espalier_trainer.train run.yaml`: one rank, started once per rank, or alone.

A failure that people can mend ends with its sentence as the last line of stderr and exit code 78.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from espalier_trainer.errors import Stopped, TrainerError
from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.process import prepare
from espalier_trainer.run_file import load_run_file


def run_rank(path: Path) -> ExitCode:
    """Runs one rank and says how it ended, on stderr for failures."""
    warnings.simplefilter("ignore")  # libraries' advice to their developers would bury what a user must read
    try:
        run = load_run_file(path)
        place = prepare(run)
        # torch is imported only now: prepare has set what it reads at import.
        from espalier_trainer.rank import train

        train(run, place, path.resolve().parent)
    except Stopped as stop:
        print(stop, flush=True)  # noqa: T201
        return stop.exit_code
    except TrainerError as error:
        return _failed(str(error), error.exit_code)
    except Exception as error:
        traceback.print_exc()
        return _failed(*_explained(error))
    return ExitCode.FINISHED


def _explained(error: Exception) -> tuple[str, ExitCode]:
    # The libraries that write weights tell a full disk in words only.
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return "the disk is full; free some space, or lower save_total_limit", ExitCode.INFRASTRUCTURE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "lower per_device_train_batch_size or cutoff_len, or raise the ZeRO stage"
        return f"out of memory: {hint}", ExitCode.OUT_OF_MEMORY
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}", ExitCode.CRASHED


def _failed(sentence: str, code: ExitCode) -> ExitCode:
    print("error: " + " ".join(sentence.split()), file=sys.stderr, flush=True)  # noqa: T201
    return code


def main(arguments: list[str]) -> Any:
    """Ends the process; a rank must not wait in a destructor for ranks that are gone."""
    if len(arguments) != 1:
        code = _failed("usage: python -m espalier_trainer.train RUN.YAML", ExitCode.USER_ERROR)
    else:
        code = run_rank(Path(arguments[0]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
