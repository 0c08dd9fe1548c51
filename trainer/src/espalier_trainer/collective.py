"""What the ranks do together. All ranks must call each function at the same point; for a lone rank it costs nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from espalier_trainer.errors import TrainerError
from espalier_trainer.process import Place
from espalier_trainer.run_file import RunFile

# Longer than compiling a DeepSpeed operator and than hashing a large checkpoint; short enough to notice a dead rank.
_TIMEOUT = datetime.timedelta(minutes=30)

T = TypeVar("T")


def join(run: RunFile, place: Place) -> None:
    """Brings the ranks together. DeepSpeed must do it itself, or it would look for a backend that the CPU has not."""
    backend = "nccl" if run.resources.device == "cuda" else "gloo"
    if run.deepspeed.enabled:
        import deepspeed

        # DeepSpeed would compile its own shared-memory all-reduce at the first start (half a minute, a C++ compiler);
        # it took as much CPU as gloo in our runs, and it spins for ever when a peer is killed.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(backend, timeout=_TIMEOUT, verbose=False)
    elif place.world_size > 1:
        distributed.init_process_group(backend, timeout=_TIMEOUT)


def barrier() -> None:
    """Waits for all ranks."""
    if _together():
        distributed.barrier()


def agreed(value: int) -> int:
    """The largest value that any rank gave."""
    return int(_reduced(value, distributed.ReduceOp.MAX))


def summed(value: float) -> float:
    """The sum over all ranks."""
    return _reduced(value, distributed.ReduceOp.SUM)


def on_first_rank(place: Place, work: Callable[[], T]) -> T:
    """Does the work on rank 0 and gives its result to all; what it raises is raised on all, so that none waits."""
    outcome: list[Any] = [None, None]
    if place.is_first:
        try:
            outcome[0] = work()
        except Exception as error:  # handed to every rank, and raised on each below
            if not _together():
                raise
            kept = isinstance(error, TrainerError | OSError)  # others may not survive the journey
            outcome[1] = error if kept else RuntimeError(f"{type(error).__name__}: {error}")
    if _together():
        distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


def _together() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def _reduced(value: float, operation: Any) -> float:
    if not _together():
        return value
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.all_reduce(tensor, op=operation)
    return float(tensor.item())
