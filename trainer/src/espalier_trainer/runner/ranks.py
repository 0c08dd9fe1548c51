"""The ranks as processes: started together, read, watched, and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier_trainer.lock import LOCK_FD_VARIABLE
from espalier_trainer.runner import die_with_parent
from espalier_trainer.runner.cause import RankExit
from espalier_trainer.runner.rank_log import RankLog

# Time for ranks to die by themselves after the first failure. A rank that merely noticed the loss of another may be the
# quicker of the two: then the real cause gets longer to speak.
_SETTLE_SECONDS = 0.2
_SETTLE_AFTER_ECHO_SECONDS = 3.0
_DRAIN_SECONDS = 2.0
_READ_BYTES = 64 << 10
# Below the range that the kernel takes ports of outgoing connections from.
_PORTS = range(20_000, 30_000)
# The runner's own affairs: the ranks take run.yaml and nothing else from us.
_PRIVATE = (
    *("ESPALIER_ATTEMPT_TOKEN_FILE", "ESPALIER_NATS_URL", "ESPALIER_ORCHESTRATOR", "ESPALIER_GRACE_SECONDS"),
    *("ESPALIER_RUN_DIR", "ESPALIER_SIGTERM_MEANS", LOCK_FD_VARIABLE),
)


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """What to start, and where."""

    command: Sequence[str]
    directory: Path
    processes: int
    threads: int
    fence: int
    lock: int
    """File descriptor that every rank keeps open: the lock falls with the last of them."""


class Ranks:
    """The ranks of one attempt on this machine."""

    def __init__(self, plan: RankPlan) -> None:
        self._plan = plan
        self._processes: list[asyncio.subprocess.Process] = []
        self._killed: set[int] = set()
        self._told: set[int] = set()
        self._exits: list[RankExit] = []
        self.logs: list[RankLog] = []

    @property
    def disk_full(self) -> bool:
        """Whether a log could not be written for want of space."""
        return any(log.disk_full for log in self.logs)

    async def run(self) -> list[RankExit]:
        """Starts the ranks and waits for all of them; gives their ends in order. After the first failure all end."""
        port = free_port()
        try:
            for rank in range(self._plan.processes):
                self.logs.append(RankLog(self._plan.directory / "logs" / f"rank-{rank}.log"))
                self._processes.append(await self._start(rank, port))
            watches = [asyncio.create_task(self._watch(rank)) for rank in range(self._plan.processes)]
            for watch in asyncio.as_completed(watches):
                await watch
                failures = [end for end in self._exits if end.is_failure]
                if failures and len(self._exits) < len(watches):
                    unclear = all(end.is_echo for end in failures)
                    settle = _SETTLE_AFTER_ECHO_SECONDS if unclear else _SETTLE_SECONDS
                    await asyncio.wait(watches, timeout=settle)
                    self.kill()
        finally:
            self.kill()
        return list(self._exits)

    def terminate(self) -> None:
        """Sends SIGTERM to all that still run."""
        self._told |= self._alive()
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Kills all that still run, with their children."""
        self._killed |= self._alive()
        self._send(signal.SIGKILL)

    def _alive(self) -> set[int]:
        return {rank for rank, process in enumerate(self._processes) if process.returncode is None}

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    async def _start(self, rank: int, port: int) -> asyncio.subprocess.Process:
        guard = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
        return await asyncio.create_subprocess_exec(
            *guard,
            *self._plan.command,
            cwd=self._plan.directory,
            env=rank_environment(os.environ, rank=rank, port=port, plan=self._plan),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            pass_fds=(self._plan.lock,),
        )

    async def _watch(self, rank: int) -> None:
        process, log = self._processes[rank], self.logs[rank]
        reading = asyncio.create_task(_copy(process, log))
        code = await process.wait()
        killed = rank in self._killed or (rank in self._told and code == -signal.SIGTERM)
        # A grandchild may hold the pipe open for ever.
        await asyncio.wait([reading], timeout=_DRAIN_SECONDS)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
        self._exits.append(RankExit(rank=rank, code=code, tail=tuple(log.tail), killed=killed))


async def _copy(process: asyncio.subprocess.Process, log: RankLog) -> None:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    while data := await process.stdout.read(_READ_BYTES):
        log.feed(data)


def rank_environment(env: Mapping[str, str], *, rank: int, port: int, plan: RankPlan) -> dict[str, str]:
    """What a rank finds in its environment: its place among the others, and none of the runner's secrets."""
    inherited = {name: value for name, value in env.items() if name not in _PRIVATE}
    return inherited | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(plan.processes),
        "LOCAL_WORLD_SIZE": str(plan.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(plan.threads),
        "ESPALIER_FENCE": str(plan.fence),
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    for port in random.sample(_PORTS, k=200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 29999")
