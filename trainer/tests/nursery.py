"""`python nursery.py`: imports once what a rank imports, and forks ranks off itself, which saves each of them 6 s.

A line on stdin is a JSON list of ranks: `{"arguments": […], "output": file, "environment": {…}}`. When all have ended,
a line on stdout has their exit codes. It ends with its stdin. That a rank starts as `python -m espalier_trainer.train`
is seen by the tests of whole runs.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# As `espalier_trainer.process` sets them for a rank: they are read when torch is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def _fork(rank: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    output = os.open(rank["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ |= rank["environment"]
    from espalier_trainer.train import main

    main(rank["arguments"])  # ends the process
    raise AssertionError("a rank outlived its end")


def _serve() -> None:
    import deepspeed  # noqa: F401

    import espalier_trainer.rank  # noqa: F401

    for line in sys.stdin:
        children = [_fork(rank) for rank in json.loads(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.write(_ANSWERS, (json.dumps(codes) + "\n").encode())


if __name__ == "__main__":
    _ANSWERS = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    _serve()
