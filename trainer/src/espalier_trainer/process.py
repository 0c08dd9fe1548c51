"""The rank as a process: its place among the ranks, and the environment that torch and DeepSpeed find at import."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from espalier_trainer.errors import ConfigError
from espalier_trainer.run_file import Resources, RunFile

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of mallopt(3)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the ranks this one is."""

    rank: int
    local_rank: int
    world_size: int

    @property
    def is_first(self) -> bool:
        """Rank 0, which writes what is written once."""
        return self.rank == 0


def prepare(run: RunFile) -> Place:
    """Sets what torch, DeepSpeed and the hub read at import; gives the rank's place. Call it first.

    Without RANK and WORLD_SIZE the process is the only rank.
    Raises ConfigError when the ranks are not as many as planned.
    """
    place = Place(rank=_number("RANK", 0), local_rank=_number("LOCAL_RANK", 0), world_size=_number("WORLD_SIZE", 1))
    if place.world_size != run.resources.world_size:
        raise ConfigError(
            f"run.yaml plans {run.resources.world_size} ranks (nodes x processes_per_node), "
            f"but WORLD_SIZE is {place.world_size}"
        )
    _set_place(run, place)
    _set_threads(run.resources)
    _set_libraries(run)
    if run.resources.device == "cpu":
        _keep_freed_memory()
    return place


def _set_place(run: RunFile, place: Place) -> None:
    names = {"RANK": place.rank, "LOCAL_RANK": place.local_rank, "WORLD_SIZE": place.world_size}
    if place.world_size == 1 and not run.deepspeed.enabled:
        for name in names:  # else accelerate would wrap a lone rank for distributed training
            os.environ.pop(name, None)
        return
    os.environ.update({name: str(value) for name, value in names.items()})
    if place.world_size == 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(_free_port()))


def _set_threads(resources: Resources) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(resources.threads_per_process)
    # Rank 0 tokenises while its neighbours wait, so it may use their cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ["RAYON_NUM_THREADS"] = str(resources.threads_per_process * resources.processes_per_node)


def _set_libraries(run: RunFile) -> None:
    if run.resources.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    home = Path(os.environ.get("ESPALIER_HOME") or run.output_dir)
    # DeepSpeed compiles its operators once and keeps them here.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(home / "cache" / "torch-extensions"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    # The compiler's driver ninja comes as a wheel beside this interpreter, which need not be on PATH.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def _keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks: each step takes the same ones again, which the kernel would clear.

    Measured on a 2.5M-parameter model: a step of 0.93 s becomes 0.63 s, its system time falls from 0.21 s to 0.01 s.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    if value and not value.isdigit():
        raise ConfigError(f"{name} is {value!r}; it must be a number")
    return int(value) if value else default


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
