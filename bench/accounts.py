"""What signing in and being signed in costs: reads of many users at once, the cache of tokens, and logins beside reads.

The load comes from this process on the same cores, over plain sockets, so that the client takes little of the time.
"""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil
from argon2 import PasswordHasher, Type

from espalier_common.identity import TokenVerifier
from espalier_common.testing.rpc import SigningKey

USERS = 50
READS_A_SECOND = 1.0  # of each user
READ_SECONDS = 15.0
BUSY_SECONDS = 8.0
LOGIN_SECONDS = 10.0
LOGINS_AT_ONCE = 4
LOGINS_COUNTED = 400
CACHE_CALLS = 200_000
BEARER = "Bearer "


@dataclass
class Connection:
    """One kept-alive HTTP/1.1 connection."""

    url: str
    reader: Any = None
    writer: Any = None
    milliseconds: list[float] = field(default_factory=list)

    async def ask(self, method: str, path: str, *, token: str = "", body: Any = None) -> int:
        """Sends a request and reads its whole answer; gives the status and notes how long it took."""
        parts = urlsplit(self.url)
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(parts.hostname, parts.port)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(content)}"]
        lines += ["content-type: application/json", *([f"authorization: {BEARER}{token}"] if token else [])]
        began = time.perf_counter()
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
        await self.reader.readexactly(length)
        self.milliseconds.append((time.perf_counter() - began) * 1000)
        return int(head.split(" ", 2)[1])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def measure(url: str, *, token: str, path: str, password: str, pids: Mapping[str, int]) -> dict[str, Any]:
    """All figures. `path` is what the users read, `password` the administrator's, `pids` the platform's processes."""
    bare = bare_hashes()
    quiet = asyncio.run(reads(url, token=token, path=path, seconds=READ_SECONDS, pause=1 / READS_A_SECOND))
    busy = asyncio.run(reads(url, token=token, path=path, seconds=BUSY_SECONDS, pause=0))
    return {
        "cached_token_microseconds": cached_token(),
        "reads_of_50_users": summary(quiet, READ_SECONDS),
        "reads_of_50_users_without_pause": summary(busy, BUSY_SECONDS),
        "bare_argon2id_per_second": bare,
        **asyncio.run(logins_beside_reads(url, token=token, path=path, password=password)),
        "cpu_milliseconds_per_login": asyncio.run(cpu_of_logins(url, password=password, pids=pids)),
    }


def bare_hashes() -> float:
    """Checks of argon2id (19 MiB, t=2, p=1) a second with a thread a core, and nothing else."""
    hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
    known = hasher.hash("a password to check")
    ends = time.monotonic() + LOGIN_SECONDS / 2

    def check(_: int) -> int:
        count = 0
        while time.monotonic() < ends:
            hasher.verify(known, "a password to check")
            count += 1
        return count

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(check, range(cores))) / (LOGIN_SECONDS / 2)


def cached_token() -> float:
    """Microseconds to find the verdict of a token that was verified before."""
    key = SigningKey()
    verifier = TokenVerifier(key.jwks)
    token = key.token(permissions=["training.runs.get"] * 60)
    verifier.verify(token)
    began = time.perf_counter()
    for _ in range(CACHE_CALLS):
        verifier.cached(token)
    return (time.perf_counter() - began) / CACHE_CALLS * 1e6


async def reads(url: str, *, token: str, path: str, seconds: float, pause: float) -> list[float]:
    """Milliseconds of all reads of the users, each of whom waits `pause` seconds between two."""
    connections = [Connection(url) for _ in range(USERS)]
    ends = time.monotonic() + seconds

    async def user(connection: Connection, number: int) -> None:
        await asyncio.sleep(pause * number / USERS)
        due = time.monotonic()
        while time.monotonic() < ends:
            status = await connection.ask("GET", path, token=token)
            assert status == 200, status
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    await asyncio.gather(*(user(connection, number) for number, connection in enumerate(connections)))
    for connection in connections:
        connection.close()
    # The first of each opened its connection.
    return [value for connection in connections for value in connection.milliseconds[1:]]


async def logins_beside_reads(url: str, *, token: str, path: str, password: str) -> dict[str, Any]:
    """Logins a second while the users go on reading."""
    connections = [Connection(url) for _ in range(LOGINS_AT_ONCE)]
    ends = time.monotonic() + LOGIN_SECONDS
    refused: dict[int, int] = {}

    async def log_in(connection: Connection) -> None:
        while time.monotonic() < ends:
            body = {"username": "admin", "password": password}
            status = await connection.ask("POST", "/api/v1/auth/login", body=body)
            if status != 200:
                refused[status] = refused.get(status, 0) + 1

    reading = asyncio.create_task(reads(url, token=token, path=path, seconds=LOGIN_SECONDS, pause=1 / READS_A_SECOND))
    await asyncio.gather(*(log_in(connection) for connection in connections))
    beside = await reading
    logins = [value for connection in connections for value in connection.milliseconds]
    for connection in connections:
        connection.close()
    return {
        "logins": summary(logins, LOGIN_SECONDS),
        "logins_refused": refused,
        "reads_beside_logins": summary(beside, LOGIN_SECONDS),
    }


async def cpu_of_logins(url: str, *, password: str, pids: Mapping[str, int]) -> dict[str, float]:
    """What a login takes of the cores, by process; `argon2id` is its hash alone, bare. Nobody reads meanwhile."""
    connections = [Connection(url) for _ in range(LOGINS_AT_ONCE)]
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}

    async def log_in(connection: Connection) -> None:
        for _ in range(LOGINS_COUNTED // LOGINS_AT_ONCE):
            body = {"username": "admin", "password": password}
            assert await connection.ask("POST", "/api/v1/auth/login", body=body) == 200

    await asyncio.gather(*(log_in(connection) for connection in connections))
    # What follows from them: audit events on their way.
    await asyncio.sleep(1)
    for connection in connections:
        connection.close()
    taken = {name: (cpu_seconds(pid) - before[name]) / LOGINS_COUNTED * 1000 for name, pid in pids.items()}
    hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
    known = hasher.hash("a password to check")
    began = time.process_time()
    for _ in range(50):
        hasher.verify(known, "a password to check")
    return taken | {"argon2id": (time.process_time() - began) / 50 * 1000}


def cpu_seconds(pid: int) -> float:
    """Of a process, and of its children whether they live or not."""
    leader = psutil.Process(pid)
    own = leader.cpu_times()
    living = [child.cpu_times() for child in leader.children(recursive=True)]
    return sum((own.user, own.system, own.children_user, own.children_system)) + sum(
        each.user + each.system for each in living
    )


def summary(milliseconds: list[float], seconds: float) -> dict[str, float]:
    """p50, p99 and how many a second."""
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "count": len(milliseconds), "per_second": len(milliseconds) / seconds}
