"""What an answer used that was cut: by its reader, by its user, or with the process that relayed it."""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from espalier.chat.v1 import completion_pb2, completion_pb2_grpc, events_pb2
from espalier.chat.v1 import service_pb2 as pb
from espalier_chat.models import RunningCompletion
from espalier_common.tables import outbox

HELLO = {"model": "tuned-1", "messages": [{"role": "user", "content": "x" * 40}]}
STREAM = {**HELLO, "stream": True}


def ask(chat: Any, request: Any) -> Any:
    stub: Any = completion_pb2_grpc.CompletionServiceStub(chat.server.channel(permissions=["chat.*"], subject="ada"))
    return stub.CreateCompletion(completion_pb2.CreateCompletionRequest(content=json.dumps(request).encode()))


async def two_words_and_no_end(stream: Any) -> None:
    await stream.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    await stream.say("One ")
    await stream.say("two")
    await asyncio.Event().wait()


async def read_until(call: Any, word: bytes) -> None:
    got = b""
    async for piece in call:
        got += piece.content
        if word in got:
            return


def events(chat: Any) -> list[events_pb2.AnswerFinished]:
    with chat.database.transaction() as session:
        payloads = session.scalars(select(outbox.c.payload).order_by(outbox.c.sequence)).all()
    return [events_pb2.AnswerFinished.FromString(bytes(payload)) for payload in payloads]


def written_down(chat: Any) -> list[int]:
    with chat.database.transaction() as session:
        return list(session.scalars(select(RunningCompletion.completion_tokens)))


@pytest.mark.parametrize("streams", [True, False])
async def test_who_leaves_pays_what_the_model_server_says_that_it_made(
    chat: Any, model_server: Any, until: Any, *, streams: bool
) -> None:
    model_server.script = two_words_and_no_end
    call = ask(chat, STREAM if streams else HELLO)
    reading = asyncio.create_task(read_until(call, b"two"))
    await until(lambda: model_server.running == 1)
    if streams:
        await reading
    model_server.used[model_server.ids[0]] = {"prompt_tokens": 23, "completion_tokens": 5}
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: not chat.completions._live)
    (told,) = events(chat)
    assert told.message_id == model_server.ids[0]
    assert (told.prompt_tokens, told.completion_tokens, told.estimated) == (23, 5, False)


async def test_of_a_stopped_answer_the_model_server_tells_what_it_made(chat: Any, model_server: Any) -> None:
    model_server.script = two_words_and_no_end
    session_id = await chat.session()
    async for delta in chat.send(session_id):
        if "two" in delta.text:
            break
    assert model_server.ids == [delta.message_id]
    model_server.used[delta.message_id] = {"prompt_tokens": 23, "completion_tokens": 5}
    request = pb.StopMessageRequest(session_id=session_id, message_id=delta.message_id)
    stopped = await chat.stub().StopMessage(request)
    assert stopped.state == pb.MESSAGE_STATE_INTERRUPTED
    assert (stopped.prompt_tokens, stopped.completion_tokens) == (23, 5)
    assert [told.estimated for told in events(chat)] == [False]


@pytest.mark.parametrize("knows", [True, False])
async def test_what_a_process_used_that_is_gone_is_told_by_the_next(
    chat: Any, new_chat: Any, model_server: Any, until: Any, *, knows: bool
) -> None:
    model_server.script = two_words_and_no_end
    call = ask(chat, STREAM)
    await read_until(call, b"two")
    await until(lambda: written_down(chat) == [2])
    if knows:
        model_server.used[model_server.ids[0]] = {"prompt_tokens": 23, "completion_tokens": 5}
    # The first has not gone at all: two that look at a time tell it once, and its own word comes too late.
    others = [(await new_chat()).completions for _ in range(2)]
    await asyncio.gather(*(other.tell_orphans(timedelta(0)) for other in others))
    (told,) = events(chat)
    assert (told.message_id, told.owner_id, told.source) == (model_server.ids[0], "ada", "api")
    assert told.state == pb.MESSAGE_STATE_INTERRUPTED
    assert (told.prompt_tokens, told.completion_tokens) == ((23, 5) if knows else (11, 2))
    assert told.estimated is not knows
    call.cancel()
    await until(lambda: not chat.completions._live)
    assert {event.message_id for event in events(chat)} == {told.message_id}
    await until(lambda: written_down(chat) == [])


async def test_a_process_that_is_killed_gives_nothing_away(chat: Any, model_server: Any, until: Any) -> None:
    model_server.script = two_words_and_no_end
    script = Path(__file__).with_name("relaying_process.py")
    database_url = chat.database.engine.url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(sys.executable, str(script), database_url, model_server.base_url)
    try:
        await until(lambda: written_down(chat) == [2])
    finally:
        process.kill()
        await process.wait()
    await until(lambda: model_server.left == 1)
    await chat.completions.tell_orphans(timedelta(0))
    (told,) = events(chat)
    assert (told.owner_id, told.model, told.source) == ("ada", "tuned-1", "api")
    assert (told.prompt_tokens, told.completion_tokens) == (2, 2)
