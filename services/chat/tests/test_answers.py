"""Streaming answers: nothing is lost, whoever goes: readers, model servers, chat itself."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select, update

from espalier.chat.v1 import events_pb2
from espalier.chat.v1 import service_pb2 as pb
from espalier_chat import answers as answers_module
from espalier_chat.models import Message, Progress
from espalier_common.db import new_id, utc_now
from espalier_common.errors import ResourceExhausted
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox

WORDS = ["Once ", "upon ", "a ", "time "]


class Slowly:
    """Says words, then waits for the test before it says the rest."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, stream: Any) -> None:
        for word in WORDS[:2]:
            await stream.say(word)
        await self.go_on.wait()
        for word in WORDS[2:]:
            await stream.say(word)
        await stream.end()


@pytest.fixture
def slowly(model_server: Any) -> Slowly:
    model_server.script = Slowly()
    script: Slowly = model_server.script
    return script


async def read_until(call: Any, text: str) -> tuple[str, str]:
    """Reads a stream until it has given this text; gives the message id and the offset reached."""
    got = ""
    async for delta in call:
        got += delta.text
        if got == text:
            return delta.message_id, delta.offset
    raise AssertionError(f"the stream ended with {got!r}")


async def test_an_answer_streams_and_is_kept_with_its_figures(chat: Any, slowly: Slowly) -> None:
    slowly.go_on.set()
    session_id = await chat.session()
    deltas = [delta async for delta in chat.send(session_id)]
    assert deltas[0].message_id
    assert "".join(delta.text for delta in deltas) == "Once upon a time "
    message = deltas[-1].message
    assert (message.state, message.finish_reason) == (pb.MESSAGE_STATE_COMPLETE, "stop")
    assert (message.prompt_tokens, message.completion_tokens) == (7, 3)
    assert 0 < message.time_to_first_token_seconds <= message.duration_seconds < 10
    question, answer = await chat.messages(session_id)
    assert (question.role, question.text) == (pb.ROLE_USER, "Hello?")
    assert answer == message


async def test_the_end_of_an_answer_is_told_to_the_others(chat: Any, slowly: Slowly) -> None:
    slowly.go_on.set()
    message = await chat.ask(await chat.session())
    with chat.database.transaction() as session:
        event = session.execute(select(outbox.c.subject, outbox.c.payload)).one()
    assert event.subject == "espalier.chat.v1.AnswerFinished"
    told = events_pb2.AnswerFinished.FromString(bytes(event.payload))
    assert (told.message_id, told.owner_id, told.completion_tokens) == (message.id, "ada", 3)
    assert told.deployment_id == chat.registry.known
    assert (told.model, told.source, told.estimated) == ("tuned-1", "chat", False)


async def test_what_an_answer_uses_at_least_is_held_until_it_ends(chat: Any, slowly: Slowly) -> None:
    slowly.go_on.set()
    session_id = await chat.session(parameters=pb.SamplingParameters(max_tokens=50))
    message = await chat.ask(session_id, "x" * 40)

    assert chat.limits.held == {message.id: {"REQUESTS": 1, "TOKENS_IN": 11, "TOKENS_OUT": 50}}


async def test_a_message_over_quota_is_refused_and_leaves_nothing_behind(chat: Any, model_server: Any) -> None:
    session_id = await chat.session()
    chat.limits.refusal = ResourceExhausted("This is over your quota of 10 tokens a day.", retry_after=60)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chat.ask(session_id)

    error: Any = from_rpc_error(refused.value)
    assert (error.code, error.message, error.retry_after) == ("RESOURCE_EXHAUSTED", chat.limits.refusal.message, 60)
    assert await chat.messages(session_id) == []
    assert model_server.requests == []


async def test_what_is_buffered_comes_in_one_piece(chat: Any, slowly: Slowly, until: Any) -> None:
    session_id = await chat.session()
    message_id, _ = await read_until(chat.send(session_id), "Once upon ")
    slowly.go_on.set()
    await until(lambda: chat.answers.find(message_id) is None or len(chat.answers.find(message_id).text) == 17)
    deltas = [delta async for delta in chat.resume(session_id, message_id, 5)]
    assert [delta.text for delta in deltas] == ["upon a time ", ""]
    assert [delta.offset for delta in deltas] == ["17", "17"]


async def test_a_client_that_vanishes_loses_nothing(chat: Any, slowly: Slowly, until: Any, model_server: Any) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    message_id, offset = await read_until(call, "Once upon ")
    call.cancel()
    answer = chat.answers.find(message_id)
    await until(lambda: answer._readers == 0)
    again = chat.resume(session_id, message_id, int(offset))
    slowly.go_on.set()
    deltas = [delta async for delta in again]
    assert "".join(delta.text for delta in deltas) == "a time "
    assert deltas[-1].message.state == pb.MESSAGE_STATE_COMPLETE
    assert deltas[-1].message.text == "Once upon a time "
    assert model_server.left == 0


async def test_a_client_that_vanishes_before_the_first_token_leaves_an_answer_that_goes_on(
    chat: Any, slowly: Slowly, until: Any, model_server: Any
) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    await until(lambda: model_server.running)
    call.cancel()
    slowly.go_on.set()
    assert (await chat.settled(session_id)).text == "Once upon a time "


async def test_an_answer_that_nobody_reads_ends_after_its_time_and_is_kept(
    new_chat: Any, slowly: Slowly, until: Any, model_server: Any
) -> None:
    chat = await new_chat(chat_linger_seconds=0.05)
    session_id = await chat.session()
    call = chat.send(session_id)
    await read_until(call, "Once upon ")
    call.cancel()
    message = await chat.settled(session_id)
    assert (message.state, message.text) == (pb.MESSAGE_STATE_INTERRUPTED, "Once upon ")
    assert message.error == "Stopped because nobody was reading any more."
    await until(lambda: model_server.left == 1)


async def test_without_lingering_a_dropped_reader_ends_the_answer_at_once(
    new_chat: Any, slowly: Slowly, until: Any, model_server: Any
) -> None:
    chat = await new_chat(chat_linger_seconds=0)
    for _ in range(20):
        call = chat.send(await chat.session())
        await read_until(call, "Once upon ")
        call.cancel()
    await until(lambda: model_server.left == 20)
    await until(lambda: not chat.answers._tasks)
    assert model_server.running == 0
    assert not chat.answers._live


async def test_a_reader_that_stays_keeps_the_answer_when_another_goes(
    new_chat: Any, slowly: Slowly, until: Any
) -> None:
    chat = await new_chat(chat_linger_seconds=0)
    session_id = await chat.session()
    first = chat.send(session_id)
    message_id, _ = await read_until(first, "Once upon ")
    second = chat.resume(session_id, message_id)
    await read_until(second, "Once upon ")
    first.cancel()
    answer = chat.answers.find(message_id)
    await until(lambda: answer._readers == 1)
    slowly.go_on.set()
    assert (await chat.settled(session_id)).state == pb.MESSAGE_STATE_COMPLETE
    second.cancel()


async def test_a_slow_reader_slows_only_itself(chat: Any, model_server: Any) -> None:
    async def fast(stream: Any) -> None:
        for _ in range(200):
            await stream.say("x" * 20_000)
        await stream.end()

    model_server.script = fast
    session_id = await chat.session()
    stalled = chat.send(session_id)
    first = await stalled.read()
    message = await chat.settled(session_id)
    assert (message.state, len(message.text)) == (pb.MESSAGE_STATE_COMPLETE, 4_000_000)
    deltas = [delta async for delta in chat.resume(session_id, first.message_id)]
    assert sum(len(delta.text) for delta in deltas) == 4_000_000
    rest = [delta async for delta in stalled]
    assert sum(len(delta.text) for delta in rest) == 4_000_000
    assert len(rest) < 100


async def test_stopping_keeps_what_is_there(chat: Any, slowly: Slowly, until: Any, model_server: Any) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    message_id, _ = await read_until(call, "Once upon ")
    request = pb.StopMessageRequest(session_id=session_id, message_id=message_id)
    stopped = await chat.stub().StopMessage(request)
    assert (stopped.state, stopped.text) == (pb.MESSAGE_STATE_INTERRUPTED, "Once upon ")
    assert stopped.error == "Stopped on request."
    with chat.database.transaction() as session:
        (payload,) = session.scalars(select(outbox.c.payload))
    assert events_pb2.AnswerFinished.FromString(bytes(payload)).estimated
    assert (stopped.prompt_tokens, stopped.completion_tokens) == (2, 2), "estimated: nobody told them"
    assert [delta async for delta in call][-1].message == stopped
    assert await chat.stub().StopMessage(request) == stopped
    await until(lambda: model_server.left == 1)
    slowly.go_on.set()
    assert (await chat.ask(session_id)).state == pb.MESSAGE_STATE_COMPLETE


async def test_a_second_message_waits_for_the_end_of_the_first(chat: Any, slowly: Slowly) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    await read_until(call, "Once upon ")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat.ask(session_id)
    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ANSWER_IN_PROGRESS")
    assert "stop it first" in error.message
    slowly.go_on.set()
    await chat.settled(session_id)
    assert len(await chat.messages(session_id)) == 2


async def test_of_messages_at_the_same_time_one_is_answered(chat: Any, slowly: Slowly, until: Any) -> None:
    session_id = await chat.session()
    calls = [asyncio.ensure_future(chat.ask(session_id, str(number))) for number in range(8)]
    await until(lambda: sum(call.done() for call in calls) == 7)
    slowly.go_on.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    answered = [result for result in results if isinstance(result, pb.Message)]
    refused = [from_rpc_error(error).reason for error in results if isinstance(error, grpc.aio.AioRpcError)]
    assert len(answered) == 1
    assert refused == ["ANSWER_IN_PROGRESS"] * 7
    assert len(await chat.messages(session_id)) == 2


async def test_the_text_is_saved_while_it_grows(chat: Any, slowly: Slowly) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    await read_until(call, "Once upon ")
    async with asyncio.timeout(60):
        while (await chat.messages(session_id))[-1].text != "Once upon ":
            await asyncio.sleep(0.05)
    assert (await chat.messages(session_id))[-1].state == pb.MESSAGE_STATE_STREAMING


async def test_saving_late_never_overwrites_the_end(chat: Any, slowly: Slowly) -> None:
    slowly.go_on.set()
    session_id = await chat.session()
    message = await chat.ask(session_id)
    chat.answers._save_progress(
        [message.id], [Progress(message_id=message.id, text="old", prompt_tokens=1, completion_tokens=1)]
    )
    assert (await chat.messages(session_id))[-1] == message


async def test_told_to_stop_chat_keeps_its_answers_and_its_readers_hear_the_end(chat: Any, slowly: Slowly) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    await read_until(call, "Once upon ")
    stopping = asyncio.ensure_future(chat.server.running.stop())
    last = [delta async for delta in call][-1].message
    async with asyncio.timeout(60):
        await stopping
    assert (last.state, last.text) == (pb.MESSAGE_STATE_INTERRUPTED, "Once upon ")
    assert "restarted" in last.error


async def test_what_a_dead_process_left_is_interrupted_at_the_next_start(
    new_chat: Any, slowly: Slowly, model_server: Any
) -> None:
    dead = await new_chat()
    session_id = await dead.session()
    call = dead.send(session_id)
    message_id, offset = await read_until(call, "Once upon ")
    await dead.answers._save()
    await halt(dead)
    fresh = await new_chat()
    fresh.answers.cut_orphans(timedelta(0))
    message = (await fresh.messages(session_id))[-1]
    assert (message.state, message.text) == (pb.MESSAGE_STATE_INTERRUPTED, "Once upon ")
    assert min(message.prompt_tokens, message.completion_tokens) > 0
    assert [delta.message.id async for delta in fresh.resume(session_id, message_id, int(offset))] == [message_id]
    slowly.go_on.set()
    assert (await fresh.ask(session_id)).state == pb.MESSAGE_STATE_COMPLETE


async def halt(chat: Any) -> None:
    """As kill -9: its tasks end and nothing is saved any more."""

    def killed(*_: object) -> None:
        raise ConnectionError("killed")

    chat.answers._end = chat.answers._save_progress = killed
    tasks = list(chat.answers._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_answer_of_another_process_is_followed_and_stopped_through_the_database(
    new_chat: Any, slowly: Slowly
) -> None:
    one, two = await new_chat(), await new_chat()
    session_id = await one.session()
    call = one.send(session_id)
    message_id, _ = await read_until(call, "Once upon ")
    followed = two.resume(session_id, message_id)
    await read_until(followed, "Once upon ")
    stopped = await two.stub().StopMessage(pb.StopMessageRequest(session_id=session_id, message_id=message_id))
    assert (stopped.state, stopped.text) == (pb.MESSAGE_STATE_INTERRUPTED, "Once upon ")
    assert [delta async for delta in followed][-1].message == stopped


async def test_a_living_process_keeps_its_answer_from_being_taken_for_dead(
    new_chat: Any, slowly: Slowly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "SAVE_SECONDS", 0.05)
    one, two = await new_chat(), await new_chat()
    session_id = await one.session()
    call = one.send(session_id)
    message_id, _ = await read_until(call, "Once upon ")
    with one.database.transaction() as session:
        session.execute(update(Message).where(Message.id == message_id).values(touched_at=utc_now() - timedelta(1)))
    async with asyncio.timeout(60):
        while not touched_lately(one.database, message_id):
            await asyncio.sleep(0.02)
    two.answers.cut_orphans(timedelta(seconds=60))
    slowly.go_on.set()
    assert (await one.settled(session_id)).state == pb.MESSAGE_STATE_COMPLETE


def touched_lately(database: Any, message_id: str) -> bool:
    with database.transaction() as session:
        touched: Any = session.get_one(Message, message_id).touched_at
    return bool(touched > utc_now() - timedelta(seconds=60))


async def test_the_end_of_an_answer_is_kept_once_the_database_is_back(chat: Any, slowly: Slowly, until: Any) -> None:
    session_id = await chat.session()
    call = chat.send(session_id)
    await read_until(call, "Once upon ")
    end, tries = chat.answers._end, []

    def away(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) < 3:
            raise ConnectionError("the database is away")
        return end(*arguments)

    chat.answers._end = away
    slowly.go_on.set()
    last = [delta async for delta in call][-1].message
    assert (last.state, last.text, len(tries)) == (pb.MESSAGE_STATE_COMPLETE, "Once upon a time ", 3)


async def test_the_same_request_again_is_one_turn_and_streams_its_answer(
    new_chat: Any, slowly: Slowly, model_server: Any
) -> None:
    one, two = await new_chat(), await new_chat()
    session_id, request_id = await one.session(), new_id()
    request = pb.SendMessageRequest(session_id=session_id, text="Hello?", request_id=request_id)
    first = one.stub().SendMessage(request)
    message_id, _ = await read_until(first, "Once upon ")
    first.cancel()
    while_it_runs, elsewhere = one.stub().SendMessage(request), two.stub().SendMessage(request)
    assert await read_until(while_it_runs, "Once upon ") == (message_id, "10")
    slowly.go_on.set()
    for call in (while_it_runs, elsewhere, one.stub().SendMessage(request)):
        deltas = [delta async for delta in call]
        assert (deltas[-1].message_id, deltas[-1].message.text) == (message_id, "Once upon a time ")
    assert len(await one.messages(session_id)) == 2
    assert len(model_server.requests) == 1


async def test_the_same_request_sent_many_times_at_once_is_one_turn(
    chat: Any, slowly: Slowly, model_server: Any
) -> None:
    slowly.go_on.set()
    request = pb.SendMessageRequest(session_id=await chat.session(), text="Hello?", request_id=new_id())

    async def send() -> str:
        return str([delta async for delta in chat.stub().SendMessage(request)][-1].message.id)

    assert len(set(await asyncio.gather(*(send() for _ in range(8))))) == 1
    assert len(model_server.requests) == 1
