"""Sessions over the wire: who sees them, what they are called, what the model is sent."""

from typing import Any

import grpc
import grpc.aio
import pytest

from espalier.chat.v1 import service_pb2 as pb
from espalier.chat.v1 import service_pb2_grpc
from espalier_common.db import new_id
from espalier_common.rpc.status import from_rpc_error
from espalier_common.testing.rpc import refusal_bytes


async def echo(stream: Any) -> None:
    await stream.say(f"You said: {stream.body['messages'][-1]['content']}")
    await stream.end()


@pytest.fixture(autouse=True)
def echoing(model_server: Any) -> None:
    model_server.script = echo


async def test_a_session_keeps_what_it_was_opened_with(chat: Any) -> None:
    parameters = pb.SamplingParameters(temperature=0, max_tokens=64)
    session_id = await chat.session(title="Test", system_prompt="Be short.", parameters=parameters)
    found = await chat.stub().GetSession(pb.GetSessionRequest(session_id=session_id))
    assert (found.title, found.system_prompt, found.owner_id) == ("Test", "Be short.", "ada")
    assert found.parameters == parameters
    assert found.parameters.HasField("temperature")
    assert not found.parameters.HasField("top_p")


async def test_a_session_with_an_unknown_deployment_is_refused(chat: Any) -> None:
    wanted = pb.Session(deployment_id=new_id())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat.stub().CreateSession(pb.CreateSessionRequest(session=wanted))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_deployment_that_does_not_answer_yet_leaves_no_message_behind(chat: Any, registry: Any) -> None:
    registry.loading = "The deployment 'tuned-1' does not answer: it is starting."
    session_id = await chat.session()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat.ask(session_id)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert from_rpc_error(caught.value).message == registry.loading
    assert await chat.messages(session_id) == []


async def test_the_registry_is_asked_with_the_callers_own_token(chat: Any, registry: Any) -> None:
    token = f"Bearer {chat.server.token_for(permissions=['chat.*'], subject='ada')}"
    request = pb.CreateSessionRequest(session=pb.Session(deployment_id=registry.known))
    stub = service_pb2_grpc.ChatServiceStub(chat.server.channel())
    await stub.CreateSession(request, metadata=(("authorization", token),))
    assert registry.tokens == [token]


def calls(stub: Any, names: dict[str, str]) -> list[Any]:
    """Every RPC on a session or an answer in it."""
    session = {"session_id": names["session_id"]}
    return [
        stub.GetSession(pb.GetSessionRequest(**session)),
        stub.ListMessages(pb.ListMessagesRequest(**session)),
        stub.StopMessage(pb.StopMessageRequest(**names)),
        stub.SendMessage(pb.SendMessageRequest(**session, text="x")).read(),
        stub.StreamMessage(pb.StreamMessageRequest(**names)).read(),
    ]


async def refusals(stub: Any, names: dict[str, str]) -> list[bytes]:
    """How the calls are refused, all of it."""
    told = []
    for call in calls(stub, names):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        told.append(refusal_bytes(caught.value))
    return told


@pytest.mark.parametrize("scope", ["own", "all"])
async def test_a_session_of_somebody_else_is_not_there_whatever_the_scope(chat: Any, scope: str) -> None:
    session_id = await chat.session()
    answer = await chat.ask(session_id)
    stranger, unknown = chat.stub("eve", scope), new_id()
    foreign = await refusals(stranger, {"session_id": session_id, "message_id": answer.id})
    absent = await refusals(stranger, {"session_id": unknown, "message_id": answer.id})
    assert foreign == [told.replace(unknown.encode(), session_id.encode()) for told in absent]
    assert not (await stranger.ListSessions(pb.ListSessionsRequest())).sessions
    assert len(await chat.messages(session_id)) == 2


async def test_the_first_message_names_a_session_without_title(chat: Any) -> None:
    session_id = await chat.session()
    await chat.ask(session_id, "  What is\nthe difference between " + "a very long list and " * 20)
    found = (await chat.stub().ListSessions(pb.ListSessionsRequest())).sessions[0]
    assert found.title.startswith("What is the difference between a very long list")
    assert found.title.endswith("…")
    assert len(found.title) <= 80


async def test_the_model_is_sent_the_system_prompt_the_turns_and_the_parameters(chat: Any, model_server: Any) -> None:
    session_id = await chat.session(
        system_prompt="Be short.", parameters=pb.SamplingParameters(temperature=0.5, seed=3)
    )
    await chat.ask(session_id, "One")
    await chat.ask(session_id, "Two")
    assert model_server.requests[-1] == {
        "model": "tuned-1",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "You said: One"},
            {"role": "user", "content": "Two"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "seed": 3,
    }


async def test_a_question_whose_answer_failed_or_is_empty_is_not_sent_again(chat: Any, model_server: Any) -> None:
    session_id = await chat.session()
    model_server.status = 503
    await chat.ask(session_id, "fails")
    model_server.status = 200

    async def nothing(stream: Any) -> None:
        await stream.end()

    model_server.script = nothing
    assert (await chat.ask(session_id, "gets nothing")).state == pb.MESSAGE_STATE_COMPLETE
    model_server.script = echo
    await chat.ask(session_id, "works")
    assert model_server.requests[-1]["messages"] == [{"role": "user", "content": "works"}]


async def test_messages_come_in_pages_that_fit_one_answer(chat: Any, model_server: Any) -> None:
    async def much(stream: Any) -> None:
        for _ in range(30):
            await stream.say("x" * 100_000)
        await stream.end()

    model_server.script = much
    session_id = await chat.session()
    for _ in range(4):
        await chat.ask(session_id)
    stub, token, pages = chat.stub(), "", []
    while True:
        request = pb.ListMessagesRequest(session_id=session_id, page_size=100, page_token=token)
        reply = await stub.ListMessages(request)
        pages.append([len(message.text) for message in reply.messages])
        if not (token := reply.next_page_token):
            break
    assert [size for page in pages for size in page] == [6, 3_000_000] * 4
    assert len(pages) > 1
    assert all(sum(page) <= 8 << 20 for page in pages)
