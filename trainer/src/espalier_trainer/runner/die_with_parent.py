"""Becomes the given command, which the kernel kills as soon as its parent is gone.

Started as a file (`python -I -S die_with_parent.py PARENT COMMAND …`): code between fork and exec would not be safe in
a process that has gRPC's threads.
"""

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns. Ends with a sentence when the parent is gone already or the command cannot be started."""
    parent, *command = arguments
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the line above could take effect
        raise SystemExit("error: the runner is gone")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123
        score.write("500")  # when memory runs out a rank goes first, not the runner that has to tell about it
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command comes from the runner
    except OSError as error:
        raise SystemExit(f"error: {command[0]} cannot be started: {error.strerror}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
