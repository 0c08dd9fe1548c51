"""What a service tells the audit log of its calls, over a real PostgreSQL and the real edge."""

import asyncio
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from espalier.auth.v1 import audit_pb2, service_pb2
from espalier.prompt.v1 import service_pb2 as prompt_pb2
from espalier.prompt.v1 import service_pb2_grpc as prompt_grpc
from espalier_common.audit.limits import MAX_COUNTED, PER_ADDRESS, PER_SERVICE, RefusalLimit
from espalier_common.audit.masking import MASK, masked, masked_message, to_json
from espalier_common.audit.recording import Recording, note_before
from espalier_common.audit.rule import rule_of
from espalier_common.bus import Bus
from espalier_common.db import Database, Id, new_id, new_metadata, utc_now
from espalier_common.errors import FailedPrecondition, PermissionDenied, ResourceExhausted, Unauthenticated
from espalier_common.outbox import OutboxRelay, _is_due
from espalier_common.rpc.permissions import all_services
from espalier_common.tables import outbox

REVISION = """
from alembic import op
import sqlalchemy as sa
from espalier_common.migrations import create_messaging_tables, drop_messaging_tables

revision = "0001"
down_revision = None

def upgrade() -> None:
    op.create_table(
        "things",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_word", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    create_messaging_tables(op)

def downgrade() -> None:
    drop_messaging_tables(op)
    op.drop_table("things")
"""
SUBJECT = "espalier.prompt.audit"


class Base(DeclarativeBase):
    metadata = new_metadata()


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    secret_word: Mapped[str] = mapped_column(default="xyzzy")
    text: Mapped[str] = mapped_column(default="")
    PUBLIC = frozenset({"text"})


class Prompts(prompt_grpc.PromptServiceServicer):
    """Does what the test sets up in `work`, in a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.work: Callable[[Any], None] = lambda session: None
        self.then: Callable[[], None] = lambda: None
        self.answer_id = ""

    def CreatePrompt(self, request: Any, context: object) -> Any:
        with self.database.transaction() as session:
            self.work(session)
        self.then()
        return prompt_pb2.Prompt(id=self.answer_id, name=request.prompt.name)

    async def GetPrompt(self, request: Any, context: object) -> Any:
        raise ResourceExhausted("Too often.", retry_after=1)

    def ListPrompts(self, request: Any, context: object) -> Any:
        with self.database.transaction() as session:
            self.work(session)
        return prompt_pb2.ListPromptsResponse()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    name = f"audited_{uuid.uuid4().hex}"
    root: Path = tmp_path_factory.mktemp("packages")
    versions = root / name / "_migrations" / "versions"
    versions.mkdir(parents=True)
    (root / name / "__init__.py").touch()
    (versions / "0001_first.py").write_text(REVISION)
    sys.path.insert(0, str(root))
    yield name
    sys.path.remove(str(root))


@pytest.fixture
def database(migrated_database: Callable[[str], Database], package: str) -> Database:
    return migrated_database(package)


@pytest.fixture
def prompts(database: Database) -> Prompts:
    return Prompts(database)


@pytest.fixture
async def server(rpc_server: Any, prompts: Prompts) -> Any:
    descriptor = prompt_pb2.DESCRIPTOR.services_by_name["PromptService"]
    entry = (prompt_grpc.add_PromptServiceServicer_to_server, prompts, descriptor)
    # The bus is away: what is told waits in the outbox, where these tests look.
    bus = Bus("nats://127.0.0.1:1", name="prompt")
    return await rpc_server([entry], name="prompt", database=prompts.database, bus=bus)


def stub(server: Any, *permissions: str) -> Any:
    return prompt_grpc.PromptServiceStub(server.channel(permissions=permissions or ("*",)))


def creation(name: str = "greeting") -> Any:
    return prompt_pb2.CreatePromptRequest(prompt=prompt_pb2.Prompt(name=name, text="Hello {name}, private words"))


def told(database: Database, *, held: bool = False) -> list[audit_pb2.AuditEvent]:
    subject = f"held:{SUBJECT}" if held else SUBJECT
    with database.transaction() as session:
        rows = session.scalars(select(outbox.c.payload).where(outbox.c.subject == subject).order_by(outbox.c.sequence))
        return [audit_pb2.AuditEvent.FromString(bytes(row)) for row in rows]


async def wait_told(database: Database, count: int = 1) -> list[audit_pb2.AuditEvent]:
    end = time.monotonic() + 60
    while len(found := await asyncio.to_thread(told, database)) < count:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)
    return found


async def test_a_change_is_held_with_its_transaction_and_released_with_its_result(
    server: Any, prompts: Prompts
) -> None:
    seen: list[list[audit_pb2.AuditEvent]] = []
    prompts.answer_id = new_id()

    prompts.work = lambda session: session.add(Thing(name="lamp"))
    prompts.then = lambda: seen.append(told(prompts.database, held=True))
    await stub(server).CreatePrompt(creation(), metadata=(("x-request-id", "req-1"),))
    [held] = seen[0]
    [event] = await wait_told(prompts.database)
    assert (event.id, event.action) == (held.id, "espalier.prompt.v1.PromptService/CreatePrompt")
    assert event.target == f"prompts/{prompts.answer_id}"
    assert (event.actor_name, event.service, event.result) == ("tester", "prompt", audit_pb2.AUDIT_RESULT_DONE)
    assert (event.request_id, event.address) == ("req-1", "127.0.0.1")
    [(label, state)] = orjson.loads(event.after).items()
    assert label.startswith("things/")
    assert (state["name"], state["secret_word"]) == ("lamp", MASK)


async def test_before_and_after_show_what_changed(server: Any, prompts: Prompts) -> None:
    with prompts.database.transaction() as session:
        thing = Thing(name="lamp")
        session.add(thing)

    def work(session: Any) -> None:
        found = session.get_one(Thing, thing.id)
        found.name, found.text = "torch", "for all to read"

    prompts.work = work
    await stub(server).CreatePrompt(creation())
    [event] = await wait_told(prompts.database)
    assert orjson.loads(event.before) == {f"things/{thing.id}": {"name": "lamp", "text": ""}}
    assert orjson.loads(event.after) == {f"things/{thing.id}": {"name": "torch", "text": "for all to read"}}


async def test_a_removed_thing_is_told_as_it_was(server: Any, prompts: Prompts) -> None:
    with prompts.database.transaction() as session:
        thing = Thing(name="lamp")
        session.add(thing)
    prompts.work = lambda session: session.delete(session.get_one(Thing, thing.id))
    await stub(server).CreatePrompt(creation())
    [event] = await wait_told(prompts.database)
    assert orjson.loads(event.before)[f"things/{thing.id}"]["name"] == "lamp"
    assert event.after == ""


async def test_a_handler_says_itself_what_a_bulk_update_changes(server: Any, prompts: Prompts) -> None:
    def work(session: Any) -> None:
        note_before({"things/all": {"name": "lamp", "password": "p"}})
        session.execute(text("UPDATE things SET name = 'torch'"))

    prompts.work = work
    await stub(server).CreatePrompt(creation())
    [event] = await wait_told(prompts.database)
    assert orjson.loads(event.before) == {"things/all": {"name": "lamp", "password": MASK}}
    assert orjson.loads(event.after) == {"prompt": {"name": "greeting", "text": MASK}}


async def test_a_change_that_fails_leaves_no_trace_of_success(server: Any, prompts: Prompts) -> None:
    def work(session: Any) -> None:
        session.add(Thing(name="lamp"))
        session.flush()
        raise FailedPrecondition("Not now.")

    prompts.work = work
    with pytest.raises(grpc.aio.AioRpcError):
        await stub(server).CreatePrompt(creation())
    [event] = await wait_told(prompts.database)
    assert (event.result, event.reason) == (audit_pb2.AUDIT_RESULT_FAILED, "FAILED_PRECONDITION")
    assert told(prompts.database, held=True) == []


async def test_reads_and_wrong_requests_are_not_told_and_refusals_are(server: Any, prompts: Prompts) -> None:
    await stub(server).ListPrompts(prompt_pb2.ListPromptsRequest())
    refused = (
        (stub(server).GetPrompt, prompt_pb2.GetPromptRequest(prompt_id=new_id())),
        (stub(server, "none").ListPrompts, prompt_pb2.ListPromptsRequest()),
        (prompt_grpc.PromptServiceStub(server.channel()).CreatePrompt, creation()),
        (stub(server).CreatePrompt, prompt_pb2.CreatePromptRequest()),
    )
    for call, request in refused:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(request)
    events = await wait_told(prompts.database, 3)
    assert [(event.reason, event.actor_name) for event in events] == [
        ("RESOURCE_EXHAUSTED", "tester"),
        ("PERMISSION_DENIED", "tester"),
        ("UNAUTHENTICATED", ""),
    ]
    assert {event.result for event in events} == {audit_pb2.AUDIT_RESULT_REFUSED}


@pytest.mark.parametrize(
    ("error", "rpc", "is_told"),
    [
        (ResourceExhausted("over quota"), "RunService.CreateRun", True),
        (ResourceExhausted("over quota"), "QuotaService.ReserveUsage", False),
        (ResourceExhausted("over quota"), "CompletionService.CreateCompletion", True),
        (PermissionDenied("auth.usage.reserve"), "QuotaService.ReserveUsage", True),
        (Unauthenticated("no token"), "QuotaService.ReserveUsage", True),
    ],
    ids=str,
)
def test_a_limit_is_told_once_by_the_call_that_met_it(error: Any, rpc: str, is_told: bool) -> None:
    service, _, name = rpc.partition(".")
    (method,) = (each.methods_by_name[name] for each in all_services() if each.name == service)
    recording = Recording(rule_of(method), service="auth", request=creation())
    recording.error = error
    assert recording.is_told is is_told


async def test_what_json_cannot_say_holds_nothing_up(server: Any, prompts: Prompts) -> None:
    late = audit_pb2.ListAuditEventsRequest()
    late.start_time.seconds = 1 << 60
    assert masked_message(late) == {"omitted_bytes": late.ByteSize()}
    odd = service_pb2.UpdateUserRequest()
    odd.update_mask.paths.append("\u00e4_B..")
    assert masked_message(odd) is not None
    assert masked({"odd": object()})["odd"].startswith("<object")


async def test_a_flood_of_refusals_is_bounded_and_its_size_is_told(server: Any, prompts: Prompts) -> None:
    call = prompt_grpc.PromptServiceStub(server.channel()).ListPrompts
    for _ in range(PER_ADDRESS + 25):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(prompt_pb2.ListPromptsRequest())
    await wait_told(prompts.database, PER_ADDRESS)
    trail = server.running._trail
    await trail.close()
    events = await wait_told(prompts.database, PER_ADDRESS + 1)
    # On a slow machine seconds may pass in between, and what was left out is told in parts.
    more = events[PER_ADDRESS:]
    assert {(event.reason, event.address) for event in more} == {("MORE_REFUSALS", "127.0.0.1")}
    assert sum(orjson.loads(event.after)["count"] for event in more) == 25


async def test_what_was_told_when_the_process_died_goes_out_after_a_while(
    server: Any, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts.work = lambda session: session.add(Thing(name="lamp"))
    monkeypatch.setattr(server.running._trail, "_put", lambda told: None)
    await stub(server).CreatePrompt(creation())
    [held] = told(prompts.database, held=True)
    due = select(outbox.c.subject).where(_is_due())
    with prompts.database.transaction() as session:
        assert session.scalars(due).all() == []
        session.execute(update(outbox).values(created_at=utc_now() - timedelta(minutes=3)))
        assert session.scalars(due).all() == [f"held:{SUBJECT}"]
    sent: list[tuple[str, bytes]] = []

    class Sent:
        def publish_from_thread(self, subject: str, payload: bytes, **_: Any) -> None:
            sent.append((subject, payload))

    assert OutboxRelay(prompts.database, Sent()).publish_batch() == 1  # type: ignore[arg-type]
    assert sent == [(SUBJECT, held.SerializeToString())]


async def test_a_call_that_ran_out_of_time_is_told_by_what_it_commits(server: Any, prompts: Prompts) -> None:
    given_up = threading.Event()

    def work(session: Any) -> None:
        assert given_up.wait(60)
        session.add(Thing(name="late"))

    prompts.work = work
    # Time enough for the call to arrive, however slow the machine.
    with pytest.raises(grpc.aio.AioRpcError):
        await stub(server).CreatePrompt(creation(), timeout=2)
    given_up.set()
    end = time.monotonic() + 60
    while not await asyncio.to_thread(told, prompts.database, held=True):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_the_limit_counts_by_address_and_for_all_together() -> None:
    now = [0.0]
    limit = RefusalLimit(lambda: now[0])
    assert sum(limit.take("a") for _ in range(100)) == PER_ADDRESS
    assert sum(limit.take(f"b{number}") for number in range(5000)) == PER_SERVICE - PER_ADDRESS
    assert limit.take_left_out() == ({}, 0)
    now[0] = 5.0
    left_out, seconds = limit.take_left_out()
    assert seconds == 5
    assert left_out["a"] == 100 - PER_ADDRESS
    assert sum(left_out.values()) == 5100 - PER_SERVICE
    assert len(left_out) <= MAX_COUNTED + 1
    assert not limit.take("a")
    now[0] = 61.0
    assert limit.take_left_out() == ({"a": 1}, 56)
    assert limit.take("a")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"password": "p", "password_change_required": True}, {"password": MASK, "password_change_required": True}),
        ({"refresh_token": "t", "prompt_tokens": 7}, {"refresh_token": MASK, "prompt_tokens": 7}),
        (
            {"reset_link": "l", "invitation_url": "u", "link": ""},
            {"reset_link": MASK, "invitation_url": MASK, "link": ""},
        ),
        ({"base_url": "https://u:p@host:8/v1?key=k"}, {"base_url": "https://host:8/v1"}),
        ({"api_key": "k", "kid": "x", "exit_code": 3}, {"api_key": MASK, "kid": "x", "exit_code": 3}),
        ({"name": "smtp_password", "value": "p"}, {"name": "smtp_password", "value": MASK}),
        ({"name": "session_days", "value": "9"}, {"name": "session_days", "value": "9"}),
        ({"a": [{"client_secret": "s"}]}, {"a": [{"client_secret": MASK}]}),
        ({"hash": b"123", "raw": b"123"}, {"hash": MASK, "raw": "[3 bytes]"}),
        ({"text": "hello", "system_prompt": "you are"}, {"text": MASK, "system_prompt": MASK}),
        ({"note": "a\x00b"}, {"note": "a\N{REPLACEMENT CHARACTER}b"}),
    ],
)
def test_secrets_and_private_words_are_masked(value: Any, expected: Any) -> None:
    assert masked(value) == expected


def test_a_state_is_bounded_whatever_it_holds() -> None:
    assert len(masked({"name": "x" * 5000})["name"]) < 1100
    assert len(masked({"many": list(range(1000))})["many"]) == 51
    assert to_json({"x": "y" * 20_000}) == '{"omitted_bytes":20008}'
    large = service_pb2.LoginRequest(username="x" * 70_000)
    assert masked_message(large) == {"omitted_bytes": large.ByteSize()}
