"""Prompts as a user sees them."""

import asyncio
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import select

from espalier.prompt.v1 import events_pb2, service_pb2, service_pb2_grpc
from espalier_common.db import Database
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox
from espalier_common.testing.rpc import RpcTestServer, refusal_bytes
from espalier_prompt.models import Base

MIA, BEN = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002", "018f6e1c-0b0a-7c3e-9d5a-0242ac120003"


async def test_a_prompt_is_kept_with_its_variables(server: RpcTestServer) -> None:
    created = await _create(_stub(server), "greeting", "Hello {{name}}, in {{language}}", commit_message="first")
    found = await _stub(server).GetPrompt(service_pb2.GetPromptRequest(prompt_id=created.id))

    assert found == created
    assert (found.name, found.text, found.commit_message) == ("greeting", "Hello {{name}}, in {{language}}", "first")
    assert (found.version, list(found.variables), found.owner_id) == (1, ["name", "language"], MIA)
    assert found.create_time.seconds > 0


async def test_what_the_server_gives_cannot_be_set(server: RpcTestServer) -> None:
    wanted = service_pb2.Prompt(name="x", text="y", version=9, owner_id=BEN, variables=["z"], id=BEN)
    created = await _stub(server).CreatePrompt(service_pb2.CreatePromptRequest(prompt=wanted))

    assert (created.version, created.owner_id, list(created.variables)) == (1, MIA, [])
    assert created.id != BEN


async def test_faulty_variables_are_told_with_their_places(server: RpcTestServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _create(_stub(server), "x", "Dear {{first name}},\n\n{{unclosed")

    error: Any = from_rpc_error(refused.value)
    assert error.reason == "INVALID_TEMPLATE"
    assert [violation.field for violation in error.violations] == ["prompt.text", "prompt.text"]
    assert [violation.description.partition(":")[0] for violation in error.violations] == [
        "line 1, column 6",
        "line 3, column 1",
    ]


async def test_a_name_is_the_owners_only_once(server: RpcTestServer) -> None:
    mia, ben = _stub(server, subject=MIA), _stub(server, subject=BEN)
    await _create(mia, "greeting", "Hello")
    await _create(ben, "greeting", "Hello")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _create(mia, "greeting", "Hi")

    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert from_rpc_error(refused.value).reason == "PROMPT_NAME_TAKEN"


async def test_of_many_with_the_same_name_at_once_one_is_created(server: RpcTestServer) -> None:
    stub = _stub(server)
    answers = await asyncio.gather(*(_create(stub, "race", "Hello") for _ in range(8)), return_exceptions=True)

    refusals = [from_rpc_error(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [refusal.reason for refusal in refusals] == ["PROMPT_NAME_TAKEN"] * 7


async def test_a_list_has_the_newest_first_in_pages(server: RpcTestServer) -> None:
    stub = _stub(server)
    for name in ("first", "second", "third"):
        await _create(stub, name, f"{{{{{name}}}}}")

    page = await stub.ListPrompts(service_pb2.ListPromptsRequest(page_size=2))
    rest = await stub.ListPrompts(service_pb2.ListPromptsRequest(page_size=2, page_token=page.next_page_token))

    prompts = [*page.prompts, *rest.prompts]
    assert [(prompt.name, prompt.text) for prompt in prompts] == [
        ("third", "{{third}}"),
        ("second", "{{second}}"),
        ("first", "{{first}}"),
    ]
    assert not rest.next_page_token


async def test_somebody_elses_prompt_looks_like_a_missing_one(server: RpcTestServer) -> None:
    created = await _create(_stub(server, subject=MIA), "mine", "Hello")
    ben = _stub(server, subject=BEN)
    missing_id = "018f6e1c-0b0a-7c3e-9d5a-0242ac12ffff"
    foreign, missing = await _get_refusal(ben, created.id), await _get_refusal(ben, missing_id)

    assert foreign.code() is missing.code() is grpc.StatusCode.NOT_FOUND
    assert refusal_bytes(foreign).replace(created.id.encode(), b"ID") == refusal_bytes(missing).replace(
        missing_id.encode(), b"ID"
    )
    assert not (await ben.ListPrompts(service_pb2.ListPromptsRequest())).prompts
    assert (await _stub(server, subject=BEN, scope="all").ListPrompts(service_pb2.ListPromptsRequest())).prompts


@pytest.mark.parametrize(
    ("prompt", "fields"),
    [
        ({}, {"prompt.name", "prompt.text"}),
        ({"name": "x" * 129, "text": "y"}, {"prompt.name"}),
        ({"name": "x", "text": "y" * 100_001}, {"prompt.text"}),
        ({"name": "x", "text": "a\x00"}, {"prompt.text"}),
    ],
)
async def test_a_prompt_out_of_bounds_is_refused_with_every_field(
    server: RpcTestServer, prompt: dict[str, Any], fields: set[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _stub(server).CreatePrompt(service_pb2.CreatePromptRequest(prompt=service_pb2.Prompt(**prompt)))

    error: Any = from_rpc_error(refused.value)
    assert error.code == "INVALID_ARGUMENT"
    assert {violation.field for violation in error.violations} == fields


async def test_reading_is_not_writing(server: RpcTestServer) -> None:
    reader = service_pb2_grpc.PromptServiceStub(server.channel(permissions=["prompt.prompts.get"]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _create(reader, "x", "y")

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_other_services_are_told_without_the_text(server: RpcTestServer, database: Database) -> None:
    created = await _create(_stub(server), "told", "Hello {{name}}")

    with database.transaction() as session:
        row = session.execute(select(outbox)).one()
    event = events_pb2.PromptVersionCreated.FromString(bytes(row.payload))
    assert row.subject == "espalier.prompt.v1.PromptVersionCreated"
    assert (event.prompt_id, event.name, event.version, event.owner_id) == (created.id, "told", 1, MIA)


def test_the_migrations_make_what_the_entities_describe(database_url: str) -> None:
    from espalier_common.testing.migrations import assert_migrations_match

    assert_migrations_match("espalier_prompt", Base.metadata, database_url)


def _stub(server: RpcTestServer, *, subject: str = MIA, scope: str = "own") -> Any:
    return service_pb2_grpc.PromptServiceStub(server.channel(permissions=["prompt.*"], subject=subject, scope=scope))


async def _create(stub: Any, name: str, text: str, *, commit_message: str = "") -> service_pb2.Prompt:
    prompt = service_pb2.Prompt(name=name, text=text, commit_message=commit_message)
    created: service_pb2.Prompt = await stub.CreatePrompt(service_pb2.CreatePromptRequest(prompt=prompt))
    return created


async def _get_refusal(stub: Any, prompt_id: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetPrompt(service_pb2.GetPromptRequest(prompt_id=prompt_id))
    return refused.value
