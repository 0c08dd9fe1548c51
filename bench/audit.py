"""What a filtered page of the audit log costs with a million events: `python bench/audit.py [--events 1000000]`.

A PostgreSQL of its own with the platform's settings; the events are made and chained here, copied in, and read through
the same code that answers ListAuditEvents. Each filter is asked anew with other values, so that no page is asked twice.
"""

import argparse
import os
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from filled import copy_in, empty_database, keep, progress
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from espalier.auth.v1 import audit_pb2
from espalier_auth.audit.kept_head import KeptHead
from espalier_auth.audit.models import CHAINED, GENESIS, AuditEntry, NewEvent, Result, hash_of, words_of
from espalier_auth.audit.rpc import AuditRpc
from espalier_client.output import table_of
from espalier_common.db import Database
from espalier_common.identity import Principal, set_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.permissions import all_services

LIMIT = 50.0  # milliseconds
CALLS = 40
DAYS = 180
COLUMNS = (*CHAINED, "hash")
Request = audit_pb2.ListAuditEventsRequest
AUDITOR = Principal(
    subject=str(uuid.UUID(int=0)),
    name="auditor",
    kind="user",
    roles=("auditor",),
    permissions=frozenset({"auth.audit.*"}),
    scope="all",
)


class World:
    """Who does what in the made-up log. Few do much; some things happened only long ago."""

    def __init__(self, count: int) -> None:
        self.random = random.Random(4)
        self.count = count
        self.end = datetime.now(UTC)
        self.people = [(str(uuid.UUID(int=self.random.getrandbits(128), version=4)), f"user-{n}") for n in range(500)]
        self.actions = [
            f"{service.full_name}/{method.name}" for service in all_services() for method in service.methods
        ]
        self.old_action = "espalier.legacy.v1.LegacyService/ImportThings"

    def event(self, number: int) -> NewEvent:
        """The event of this number; one in a hundred of the oldest tenth is of an action long gone."""
        pick = self.random
        actor_id, actor_name = self.people[min(int(pick.paretovariate(0.7)) - 1, len(self.people) - 1)]
        old = number < self.count // 10 and pick.random() < 0.1
        refused = pick.random() < 0.02
        return NewEvent(
            id=str(uuid.UUID(int=pick.getrandbits(128), version=4)),
            time=self.end - timedelta(days=DAYS) * (1 - number / self.count),
            service="auth",
            actor_id=actor_id,
            actor_name=actor_name,
            action=self.old_action if old else pick.choice(self.actions),
            target=f"training/runs/{uuid.UUID(int=pick.randrange(20_000))}",
            result=Result.REFUSED if refused else Result.DONE,
            reason="PERMISSION_DENIED" if refused else "",
            address=f"192.0.2.{pick.randrange(256)}",
            request_id=f"{pick.getrandbits(64):016x}",
            before='{"training/runs":{"name":"first"}}',
            after='{"training/runs":{"name":"second"}}',
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="events in the log")
    count: int = parser.parse_args().events
    with empty_database("audit") as database:
        show(measure(database, World(count)))
    return 0


def measure(database: Database, world: World) -> dict[str, Any]:
    """Fills the log, then asks."""
    began = time.perf_counter()
    fill(database, world)
    progress(f"{world.count} events in {time.perf_counter() - began:.0f} s")
    set_principal(AUDITOR)
    rpc = AuditRpc(database, kept_head=KeptHead(database, None), paginator=Paginator("bench"))
    pages = {name: timed(rpc, make) for name, make in questions(world).items()}
    began = time.perf_counter()
    verified = verify(rpc)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "events": world.count,
        "page_milliseconds": pages,
        "verify": {"events": verified, "seconds": time.perf_counter() - began},
    }


def fill(database: Database, world: World) -> None:
    """Copies the chained events in, and lets PostgreSQL count what it knows of them."""
    copy_in(database, AuditEntry.__table__, COLUMNS, _batches(world))


def _batches(world: World) -> Iterator[list[str]]:
    before = GENESIS
    for start in range(0, world.count, 20_000):
        batch = []
        for number in range(start, min(start + 20_000, world.count)):
            line, before = _line(world.event(number), number + 1, before)
            batch.append(line)
        yield batch


def _line(event: NewEvent, sequence: int, before: bytes) -> tuple[str, bytes]:
    values = {**asdict(event), "result": event.result.value, "words": words_of(event), "sequence": sequence}
    digest = hash_of(before, tuple(values[name] for name in CHAINED))
    values |= {"words": "{" + ",".join(values["words"]) + "}", "hash": f"\\\\x{digest.hex()}"}
    return "\t".join(str(values[name]) for name in COLUMNS) + "\n", digest


def questions(world: World) -> dict[str, Callable[[], Request]]:
    """What is asked, each by a function that asks it anew."""
    pick = random.Random(7)
    busiest, rare = world.people[0][0], world.people[400:]

    def moment() -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(world.end - timedelta(days=pick.uniform(1, DAYS)))
        return stamp

    return {
        "newest": lambda: Request(end_time=moment()),
        "actor, busiest": lambda: Request(actor=busiest, end_time=moment()),
        "actor, rare": lambda: Request(actor=pick.choice(rare)[0]),
        "actor by name": lambda: Request(actor=pick.choice(world.people)[1]),
        "actor, unknown": lambda: Request(actor=str(uuid.uuid4())),
        "action": lambda: Request(action=pick.choice(world.actions), end_time=moment()),
        "action, prefix": lambda: Request(action="espalier.auth.v1.", end_time=moment()),
        "action, only long ago": lambda: Request(action=world.old_action),
        "action, prefix only long ago": lambda: Request(action="espalier.legacy"),
        "target": lambda: Request(target=f"training/runs/{uuid.UUID(int=pick.randrange(20_000))}"),
        "target, prefix of all": lambda: Request(target="training/", end_time=moment()),
        "refused": lambda: Request(result=audit_pb2.AUDIT_RESULT_REFUSED, end_time=moment()),
        "failed, of which there are none": lambda: Request(result=audit_pb2.AUDIT_RESULT_FAILED),
        "refused, rare actor": lambda: Request(
            result=audit_pb2.AUDIT_RESULT_REFUSED, actor=pick.choice(rare)[0], end_time=moment()
        ),
        "word, frequent": lambda: Request(query="training", end_time=moment()),
        "word, address": lambda: Request(query=f"192.0.2.{pick.randrange(256)}"),
        "word, only long ago": lambda: Request(query="LegacyService"),
        "words, two": lambda: Request(query=f"permission {pick.choice(world.people[:50])[1]}"),
        "words and a time": lambda: Request(query=f"192.0.2.{pick.randrange(256)} denied", end_time=moment()),
        "word, unknown": lambda: Request(query=uuid.uuid4().hex),
        "request id": lambda: Request(query=f"{pick.getrandbits(64):016x}"),
        "a day": lambda: _day(moment()),
        "request": lambda: Request(request_id=f"{pick.getrandbits(64):016x}"),
        "address": lambda: Request(address=f"192.0.2.{pick.randrange(256)}", end_time=moment()),
        **_of_several(world, moment),
    }


def _of_several(world: World, moment: Callable[[], Timestamp]) -> dict[str, Callable[[], Request]]:
    """Two and three filters at once: some wide, some narrow, some that only long ago had anything in common."""
    pick = random.Random(11)
    busiest, refused, old = world.people[0][0], audit_pb2.AUDIT_RESULT_REFUSED, world.old_action

    def action() -> str:
        return pick.choice(world.actions)

    def address() -> str:
        return f"192.0.2.{pick.randrange(256)}"

    return {
        "actor, action": lambda: Request(actor=busiest, action=action(), end_time=moment()),
        "actor, action only long ago": lambda: Request(actor=busiest, action=old),
        "actor, action prefix": lambda: Request(actor=pick.choice(world.people)[0], action="espalier.auth."),
        "actor, address": lambda: Request(actor=busiest, address=address(), end_time=moment()),
        "action only long ago, refused": lambda: Request(action=old, result=refused),
        "action prefix only long ago, word": lambda: Request(action="espalier.legacy", query="denied"),
        "action, address": lambda: Request(action=action(), address=address()),
        "action, word": lambda: Request(action=action(), query="user-1", end_time=moment()),
        "address, refused": lambda: Request(address=address(), result=refused, end_time=moment()),
        "target of one type, refused": lambda: Request(target="training/runs/", result=refused, end_time=moment()),
        "target of one type, action only long ago": lambda: Request(target="training/runs/", action=old),
        "actor, action, refused": lambda: Request(actor=busiest, action=action(), result=refused, end_time=moment()),
        "actor, action only long ago, refused": lambda: Request(actor=busiest, action=old, result=refused),
        "actor, address, action prefix": lambda: Request(actor=busiest, address=address(), action="espalier.auth."),
        "action prefix, refused, a time": lambda: Request(
            action="espalier.training_orchestrator.", result=refused, start_time=moment(), end_time=moment()
        ),
        "action only long ago, address, word": lambda: Request(action=old, address=address(), query="training"),
    }


def _day(start: Timestamp) -> Request:
    end = Timestamp(seconds=start.seconds + 86_400)
    return Request(start_time=start, end_time=end, query="denied")


def timed(rpc: AuditRpc, make: Callable[[], Request]) -> dict[str, float]:
    """Milliseconds of a page, over many different questions of one kind; the second page is asked too."""
    found = []
    for request in _asked(make):
        began = time.perf_counter()
        answer = rpc.ListAuditEvents(request, None)
        found.append((time.perf_counter() - began) * 1000)
        if answer.next_page_token:
            request.page_token = answer.next_page_token
            began = time.perf_counter()
            rpc.ListAuditEvents(request, None)
            found.append((time.perf_counter() - began) * 1000)
    return {"p50": statistics.median(found), "max": max(found), "count": len(found)}


def _asked(make: Callable[[], Request]) -> Iterator[Request]:
    for _ in range(CALLS):
        yield make()


def verify(rpc: AuditRpc) -> int:
    """The whole chain, as `espalier audit verify` does it; gives how many events were checked."""
    checked, start = 0, ""
    while True:
        found = rpc.VerifyAuditChain(audit_pb2.VerifyAuditChainRequest(start=start), None)
        if not found.intact:
            raise SystemExit(found.message)
        checked, start = checked + int(found.checked), found.next
        if not start:
            return checked


def show(result: dict[str, Any]) -> None:
    """The table; the same, whole, goes to bench/results."""
    rows = [
        (name, f"{values['p50']:.1f}", f"{values['max']:.1f}", f"{LIMIT:g}")
        for name, values in result["page_milliseconds"].items()
    ]
    console = Console()
    console.print(table_of(("page of 50 by", "p50 (ms)", "max (ms)", "at most"), rows))
    seconds, events = result["verify"]["seconds"], result["verify"]["events"]
    console.print(f"\nchain of {events} events verified in {seconds:.1f} s")
    keep(result, "audit")


if __name__ == "__main__":
    sys.exit(main())
