"""What the ledger answers with a million entries: `python bench/usage.py [--entries 1000000]`.

A PostgreSQL of its own with the platform's settings; the entries of 60 days are made here, copied in, and read through
the same code that answers ListUsage and GetStatistics. Also: what a reservation costs against a full month, how many
statements it takes, and how many reports a second the ledger takes in beside all that.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from filled import copy_in, empty_database, keep, progress
from rich.console import Console
from sqlalchemy import event
from sqlalchemy import text as sql

from espalier.auth.v1 import usage_pb2 as pb
from espalier_auth.access.models import Group
from espalier_auth.models import GroupMember, User
from espalier_auth.usage.models import Kind, Period, Quota, UsageEntry
from espalier_auth.usage.rpc import UsageRpc
from espalier_auth.usage.service import Quotas, Use, take_into_ledger
from espalier_client.output import table_of
from espalier_common.db import Database
from espalier_common.identity import Principal, set_principal
from espalier_common.rpc.timestamps import timestamp

LIMIT = 200.0  # milliseconds
CALLS = 40
DAYS = 60
USERS = 500
MODELS = 40
COLUMNS = (
    *("id", "kind", "amount", "user_id", "model", "source", "reference", "at", "succeeded", "queue_wait", "by_model"),
)
ADMIN = Principal(
    subject=str(uuid.UUID(int=0)),
    name="admin",
    kind="user",
    roles=("admin",),
    permissions=frozenset({"*"}),
    scope="all",
)


class World:
    """Who used what in the made-up ledger: few much, most little; answers mostly, and servers and trainings."""

    def __init__(self, count: int) -> None:
        self.random = random.Random(4)
        self.count = count
        self.end = datetime.now(UTC)
        self.people = [str(uuid.UUID(int=self.random.getrandbits(128), version=4)) for _ in range(USERS)]

    def person(self) -> str:
        """Somebody; the first of them most often."""
        return self.people[min(int(self.random.paretovariate(0.7)) - 1, USERS - 1)]

    def lines(self, number: int) -> list[str]:
        """The entries of one use: three of an answer, one piece of a server or a training."""
        pick, user = self.random, self.person()
        at = self.end - timedelta(days=DAYS) * (1 - number / self.count)
        # Whoever it is: he goes by one or two models, through the console or a program.
        model = f"model-{(int(user[:4], 16) + (pick.random() < 0.3)) % MODELS}"
        source = pick.choice(["chat", "chat", "chat", "api", "comparison"])
        if pick.random() < 0.15:
            source = pick.choice(["serving", "serving", "training"])
            found = [(pick.choice([Kind.GPU_SECONDS, Kind.CPU_SECONDS]), 900.0)]
        else:
            found = [
                (Kind.REQUESTS, 1.0),
                (Kind.TOKENS_IN, pick.randrange(4000)),
                (Kind.TOKENS_OUT, pick.randrange(900)),
            ]
        by_model = "\\N"
        if pick.random() < 0.01:
            kept = {f"model-{pick.randrange(MODELS)}": pick.randrange(1 << 40) for _ in range(pick.randrange(6))}
            found, model, source = [(Kind.STORED_BYTES, sum(kept.values()))], "", "training"
            by_model = json.dumps(kept)
        going_on = source == "serving"
        rest = [at.isoformat(), "\\N" if going_on else str(pick.random() < 0.97).lower(), "\\N", by_model]
        return [
            "\t".join([str(uuid.UUID(int=pick.getrandbits(128))), kind, str(amount), user, model, source, "ref", *rest])
            + "\n"
            for kind, amount in found
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries in the ledger")
    count: int = parser.parse_args().entries
    with empty_database("usage") as database:
        show(measure(database, World(count)))
    return 0


def measure(database: Database, world: World) -> dict[str, Any]:
    """Fills the ledger, then asks."""
    began = time.perf_counter()
    fill(database, world)
    progress(f"{world.count} entries in {time.perf_counter() - began:.0f} s")
    set_principal(ADMIN)
    rpc = UsageRpc(database)
    answers = {name: timed(ask) for name, ask in questions(rpc, world).items()}
    reservation = reserve(database, world)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "entries": world.count,
        "milliseconds": answers,
        "reservation": reservation,
        "reports_a_second": take_in(database, world),
    }


def fill(database: Database, world: World) -> None:
    """Makes the people and copies the entries in."""
    with database.transaction() as session:
        group = Group(name="all of them", description="", roles=[])
        session.add(group)
        session.add_all(
            User(id=each, username=f"user-{n}", password_hash="", roles=[]) for n, each in enumerate(world.people)
        )
        session.flush()
        session.add_all(GroupMember(group_id=group.id, user_id=each) for each in world.people[:100])
    copy_in(database, UsageEntry.__table__, COLUMNS, _batches(world))


def _batches(world: World) -> Iterator[list[str]]:
    made = 0
    while made < world.count:
        batch: list[str] = []
        until = min(made + 20_000, world.count)
        while made < until:
            made += len(lines := world.lines(made))
            batch += lines
        yield batch


def questions(rpc: UsageRpc, world: World) -> dict[str, Callable[[], Any]]:
    """What administrators and users ask, each by a function that asks it."""
    month: dict[str, Any] = {"start_time": timestamp(world.end - timedelta(days=30)), "end_time": timestamp(world.end)}
    days: dict[str, Any] = month | {"start_time": timestamp(world.end - timedelta(days=2))}

    def usage(**asked: Any) -> Callable[[], Any]:
        return lambda: rpc.ListUsage(pb.ListUsageRequest(**month, **asked), None)

    day, hour = pb.USAGE_GRAIN_DAY, pb.USAGE_GRAIN_HOUR
    busiest = world.people[0]
    return {
        "statistics, 30 days": lambda: rpc.GetStatistics(pb.GetStatisticsRequest(**month), None),
        "by day": usage(grain=day),
        "by hour": usage(grain=hour),
        "by hour and user, of two days": lambda: rpc.ListUsage(
            pb.ListUsageRequest(**days, grain=hour, group_by=["user"]), None
        ),
        "by user": usage(group_by=["user"]),
        "by model": usage(group_by=["model"]),
        "by source": usage(group_by=["source"]),
        "by group": usage(group_by=["group"]),
        "by day and user": usage(grain=day, group_by=["user"]),
        "by day and model": usage(grain=day, group_by=["model"]),
        "by user and model": usage(group_by=["user", "model"]),
        "busiest user by day": usage(grain=day, user_id=busiest),
        "busiest user by day and model": usage(grain=day, group_by=["model"], user_id=busiest),
        "one model by day": usage(grain=day, model="model-7"),
        "GPU-seconds by day and user": usage(grain=day, group_by=["user"], kind=pb.USAGE_KIND_GPU_SECONDS),
    }


def timed(ask: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of one answer."""
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        ask()
        found.append((time.perf_counter() - began) * 1000)
    return {"p50": statistics.median(found), "p99": statistics.quantiles(found, n=100)[98], "max": max(found)}


def reserve(database: Database, world: World) -> dict[str, float]:
    """A run's reservation of the busiest user, against limits of his own and of a group of 100, over a full month."""
    user, quotas = world.people[0], Quotas()
    with database.transaction() as session:
        group_id = session.scalar(sql("SELECT id FROM groups WHERE name = 'all of them'"))
        month = {"period": Period.MONTH, "amount": 1e15, "time_zone": "Europe/Berlin"}
        for bound in ({"user_id": user}, {"group_id": str(group_id)}):
            session.add_all(
                [
                    Quota(kind=Kind.GPU_SECONDS, **month, **bound),
                    Quota(kind=Kind.CONCURRENT_RUNS, amount=1e9, period=Period.NONE, **bound),
                    Quota(kind=Kind.STORED_BYTES, amount=1e18, period=Period.NONE, **bound),
                ]
            )
    statements: list[str] = []
    amounts = {Kind.CONCURRENT_RUNS: 1.0, Kind.GPU_SECONDS: 0.0, Kind.STORED_BYTES: 0.0}

    def ask() -> None:
        with database.transaction() as session:
            until = datetime.now(UTC) + timedelta(minutes=5)
            quotas.reserve(session, reservation_id=uuid.uuid4().hex, user_id=user, amounts=amounts, until=until)

    event.listen(database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    ask()
    return {"statements": len(statements)} | timed(ask)


def take_in(database: Database, world: World) -> float:
    """Reports a second, in batches of 100 as the bus hands them out."""
    began, batches = time.perf_counter(), 50
    for _ in range(batches):
        uses = [
            Use(id=str(uuid.uuid4()), kind=Kind.REQUESTS, amount=1, user_id=world.person(), at=datetime.now(UTC))
            for _ in range(100)
        ]
        with database.transaction() as session:
            take_into_ledger(session, uses)
    return 100 * batches / (time.perf_counter() - began)


def show(result: dict[str, Any]) -> None:
    """The table; the same, whole, goes to bench/results."""
    told = result["milliseconds"] | {"a run's reservation": result["reservation"]}
    rows = [(name, f"{ms['p50']:.1f}", f"{ms['p99']:.1f}", f"{LIMIT:g}") for name, ms in told.items()]
    console = Console()
    console.print(table_of(("of a month", "p50 (ms)", "p99 (ms)", "at most"), rows))
    console.print(
        f"\na reservation is {result['reservation']['statements']} statements; "
        f"{result['reports_a_second']:,.0f} reports a second into {result['entries']} entries"
    )
    keep(result, "usage")


if __name__ == "__main__":
    sys.exit(main())
