"""The OpenAI API's completions: the model server's own bytes, and what they used is told once, whoever goes."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select

from espalier.chat.v1 import completion_pb2 as pb
from espalier.chat.v1 import completion_pb2_grpc, events_pb2
from espalier.chat.v1 import service_pb2 as chat_pb2
from espalier_chat.asking import read_asked
from espalier_chat.chunks import load_chunk
from espalier_chat.errors import InvalidCompletion, UpstreamError
from espalier_chat.passage import Passage
from espalier_common.errors import ResourceExhausted
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox

HELLO = {"model": "tuned-1", "messages": [{"role": "user", "content": "x" * 40}]}
STREAM = {**HELLO, "stream": True}
WHOLE = {
    "id": "1",
    "choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
}


def ask(chat: Any, request: Any, *, permissions: tuple[str, ...] = ("chat.*",)) -> Any:
    channel = chat.server.channel(permissions=list(permissions), subject="ada")
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    stub: Any = completion_pb2_grpc.CompletionServiceStub(channel)
    return stub.CreateCompletion(pb.CreateCompletionRequest(content=content))


async def answer(chat: Any, request: Any) -> bytes:
    return b"".join([piece.content async for piece in ask(chat, request)])


async def refusal(chat: Any, request: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await answer(chat, request)
    return from_rpc_error(refused.value)


@pytest.fixture
def used(chat: Any, until: Callable[..., Any]) -> Callable[[], Any]:
    """Waits until everything that was begun is over; gives what was told, as the ledger takes it."""

    async def read() -> list[events_pb2.AnswerFinished]:
        await until(lambda: not chat.completions._live)
        with chat.database.transaction() as session:
            payloads = session.scalars(select(outbox.c.payload)).all()
        return [events_pb2.AnswerFinished.FromString(bytes(payload)) for payload in payloads]

    return read


async def three_words(stream: Any) -> None:
    for word in ("One ", "two ", "three."):
        await stream.say(word)
    await stream.end()


async def test_a_whole_answer_passes_unread_and_its_use_is_told(chat: Any, model_server: Any, used: Any) -> None:
    model_server.whole = json.dumps(WHOLE, indent=1).encode()
    asked = {**HELLO, "max_tokens": 5, "n": 2, "user": "me", "nobody_knows": {"a": [1]}}
    pieces = [piece async for piece in ask(chat, asked)]
    assert b"".join(piece.content for piece in pieces) == model_server.whole
    assert [piece.content_type for piece in pieces] == ["application/json"]
    assert model_server.requests == [asked]
    (told,) = await used()
    assert (told.source, told.model, told.owner_id, told.session_id) == ("api", "tuned-1", "ada", "")
    assert told.deployment_id == chat.registry.known
    assert (told.state, told.prompt_tokens, told.completion_tokens) == (chat_pb2.MESSAGE_STATE_COMPLETE, 9, 2)
    assert chat.limits.held == {told.message_id: {"REQUESTS": 1, "TOKENS_IN": 11, "TOKENS_OUT": 10}}


@pytest.mark.parametrize("wants_use", [True, False])
async def test_a_stream_passes_as_it_comes(chat: Any, model_server: Any, used: Any, *, wants_use: bool) -> None:
    model_server.script = three_words
    request = {**STREAM, "stream_options": {"include_usage": True, "more": 1}} if wants_use else STREAM
    text = (await answer(chat, request)).decode()
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert "".join(json.loads(data)["choices"][0]["delta"]["content"] for data in events[:3]) == "One two three."
    assert events[-1] == "[DONE]"
    assert text.endswith("data: [DONE]\n\n")
    assert [json.loads(data)["choices"] == [] for data in events[3:-1]] == ([False, True] if wants_use else [False])
    (sent,) = model_server.requests
    assert sent["stream_options"]["include_usage"] is True
    assert ("more" in sent["stream_options"]) is wants_use
    (told,) = await used()
    assert (told.prompt_tokens, told.completion_tokens, told.estimated) == (7, 3, False)


async def test_a_model_may_be_named_by_the_id_of_its_deployment(chat: Any, model_server: Any, used: Any) -> None:
    model_server.whole = json.dumps(WHOLE).encode()
    await answer(chat, {**HELLO, "model": chat.registry.known})
    assert model_server.requests[0]["model"] == "tuned-1"
    (told,) = await used()
    assert told.model == "tuned-1"


async def test_a_reader_that_goes_ends_the_generation_and_pays_for_what_there_was(
    chat: Any, model_server: Any, used: Any, until: Any
) -> None:
    async def endless(stream: Any) -> None:
        await stream.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for _ in range(4):
            await stream.say("word ")
        await asyncio.Event().wait()

    model_server.script = endless
    call = ask(chat, STREAM)
    got = b""
    async for piece in call:
        got += piece.content
        if got.count(b"word") == 4:
            break
    call.cancel()
    await until(lambda: model_server.left == 1)
    (told,) = await used()
    assert told.state == chat_pb2.MESSAGE_STATE_INTERRUPTED
    assert (told.prompt_tokens, told.completion_tokens, told.estimated) == (11, 4, True)


async def test_who_leaves_before_a_whole_answer_is_there_pays_for_what_was_asked(
    chat: Any, model_server: Any, used: Any, until: Any
) -> None:
    async def silent(stream: Any) -> None:
        await asyncio.Event().wait()

    model_server.script = silent
    call = ask(chat, HELLO)
    reading = asyncio.ensure_future(anext(aiter(call)))
    await until(lambda: model_server.running == 1)
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: model_server.left == 1)
    (told,) = await used()
    assert (told.prompt_tokens, told.completion_tokens) == (11, 0)


async def test_a_slow_reader_holds_up_the_model_server_and_not_our_memory(
    new_chat: Any, model_server: Any, until: Any
) -> None:
    said = 0

    async def flood(stream: Any) -> None:
        nonlocal said
        while True:
            await stream.say("x" * 10_000)
            said += 1

    model_server.script = flood
    chat = await new_chat(chat_idle_seconds=1.0)
    call = ask(chat, STREAM)
    await call.read()
    before = -1

    async def stands_still() -> None:
        nonlocal before
        while before != said:
            before = said
            await asyncio.sleep(1.5)  # longer than the model server may be silent: it is not its silence

    await asyncio.wait_for(stands_still(), 120)
    assert said < 2_000
    assert (await call.read()).content
    call.cancel()
    await until(lambda: model_server.left == 1)


async def test_what_the_model_server_says_of_the_request_is_passed_on(chat: Any, model_server: Any, used: Any) -> None:
    model_server.status = 422
    model_server.refusal = {"error": {"message": "is too hot", "param": "temperature", "code": "invalid_value"}}
    error = await refusal(chat, HELLO)
    assert (error.code, error.reason, error.message) == ("INVALID_ARGUMENT", "COMPLETION_REFUSED", "is too hot")
    assert (error.violations[0].field, error.metadata["code"]) == ("temperature", "invalid_value")
    (told,) = await used()
    assert (told.state, told.prompt_tokens, told.completion_tokens) == (chat_pb2.MESSAGE_STATE_FAILED, 0, 0)


@pytest.mark.parametrize(
    ("status", "reason", "retry_after"),
    [(500, "MODEL_SERVER_FAILED", 2), (401, "MODEL_SERVER_FAILED", 2), (429, "MODEL_BUSY", 5), (503, "MODEL_BUSY", 5)],
)
async def test_what_it_says_of_itself_is_not(
    chat: Any, model_server: Any, status: int, reason: str, retry_after: int
) -> None:
    model_server.status, model_server.refusal = status, {"error": {"message": "Traceback: /srv/key.pem"}}
    for request in (HELLO, STREAM):
        error = await refusal(chat, request)
        assert (error.code, error.reason, error.retry_after) == ("UNAVAILABLE", reason, retry_after)
        assert "Traceback" not in error.message


async def test_an_answer_that_breaks_ends_with_an_error_after_its_last_whole_line(
    chat: Any, model_server: Any, used: Any
) -> None:
    async def dying(stream: Any) -> None:
        await stream.say("Half")
        await stream.raw(b'data: {"choices": [{"del')
        await asyncio.sleep(0.05)
        stream.die()

    model_server.script = dying
    pieces: list[bytes] = []

    async def read() -> None:
        async for piece in ask(chat, STREAM):
            pieces.append(piece.content)

    with pytest.raises(grpc.aio.AioRpcError) as broken:
        await read()
    got = b"".join(pieces)
    assert from_rpc_error(broken.value).reason == "MODEL_SERVER_FAILED"
    assert got.endswith(b"\n")
    assert got.count(b"data:") == 1
    (told,) = await used()
    assert (told.state, told.prompt_tokens) == (chat_pb2.MESSAGE_STATE_FAILED, 11)


@pytest.mark.parametrize("request_", [HELLO, STREAM], ids=["whole", "stream"])
async def test_a_server_that_is_not_there_or_silent_is_given_up(
    new_chat: Any, model_server: Any, until: Any, request_: Any
) -> None:
    async def silent(stream: Any) -> None:
        while True:
            await stream.raw(b": ping\n\n")
            await asyncio.sleep(0.02)

    model_server.script = silent
    chat = await new_chat(chat_idle_seconds=0.3, chat_completion_seconds=0.3)
    assert "sent nothing for 0.3 seconds" in (await refusal(chat, request_)).message
    await until(lambda: model_server.running == 0)
    model_server.base_url = "http://127.0.0.1:1/v1"
    assert "does not answer" in (await refusal(chat, request_)).message


async def test_unknown_and_loading_models_are_told_apart(chat: Any) -> None:
    error = await refusal(chat, {**HELLO, "model": "nobody"})
    assert (error.code, error.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert "'nobody'" in error.message
    chat.registry.loading = "The deployment 'tuned-1' does not answer: it is starting."
    error = await refusal(chat, HELLO)
    assert (error.code, error.reason, error.message) == ("UNAVAILABLE", "MODEL_NOT_READY", chat.registry.loading)


async def test_over_quota_nothing_is_asked_and_nothing_told(chat: Any, model_server: Any, used: Any) -> None:
    chat.limits.refusal = ResourceExhausted("This is over your quota of 10 tokens a day.", retry_after=60)
    error = await refusal(chat, HELLO)
    assert (error.code, error.message, error.retry_after) == ("RESOURCE_EXHAUSTED", chat.limits.refusal.message, 60)
    assert (model_server.requests, await used()) == ([], [])


async def test_a_permission_of_its_own_is_needed(chat: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(chat, HELLO, permissions=("chat.messages.create",)).read()
    assert "chat.completions.create" in str(refused.value.details())


async def test_a_restart_ends_answers_with_a_word_and_tells_what_they_used(
    chat: Any, model_server: Any, used: Any
) -> None:
    async def endless(stream: Any) -> None:
        await stream.say("One")
        await asyncio.Event().wait()

    model_server.script = endless
    call = ask(chat, STREAM)
    while b"One" not in (await call.read()).content:
        pass
    await chat.completions.drain()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert from_rpc_error(ended.value).reason == "CHAT_STOPPING"
    assert (await refusal(chat, HELLO)).reason == "CHAT_STOPPING"
    (told,) = await used()
    assert told.state == chat_pb2.MESSAGE_STATE_INTERRUPTED


async def test_the_use_is_told_once_the_database_is_back(
    chat: Any, model_server: Any, used: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, tries = chat.completions._tell, 0

    def failing(ended: Any) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionError
        tell(ended)

    monkeypatch.setattr(chat.completions, "_tell", failing)
    model_server.whole = json.dumps(WHOLE).encode()
    assert await answer(chat, HELLO) == model_server.whole
    assert len(await used()) == 1


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{", ""),
        (b"[]", ""),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", ""),
        (b'{"messages": [1]}', "model"),
        (b'{"model": 3, "messages": [1]}', "model"),
        (b'{"model": "m", "messages": []}', "messages"),
        (b'{"model": "m", "messages": "x"}', "messages"),
        (b'{"model": "m", "messages": [1], "stream": "yes"}', "stream"),
        (b'{"model": "m", "messages": [1], "stream_options": {}}', "stream_options"),
        (b'{"model": "m", "messages": [1], "stream": true, "stream_options": 1}', "stream_options"),
        (
            b'{"model": "m", "messages": [1], "stream": true, "stream_options": {"include_usage": 1}}',
            "stream_options.include_usage",
        ),
        (b'{"model": "m", "messages": [1], "max_tokens": 0}', "max_tokens"),
        (b'{"model": "m", "messages": [1], "max_completion_tokens": true}', "max_completion_tokens"),
        (b'{"model": "m", "messages": [1], "n": 1.5}', "n"),
    ],
)
def test_a_request_that_cannot_be_read_names_its_field(content: bytes, field: str) -> None:
    with pytest.raises(InvalidCompletion) as refused:
        read_asked(content)
    assert [violation.field for violation in refused.value.violations] == ([field] if field else [])


def test_the_prompt_is_estimated_by_all_its_texts() -> None:
    parts = [{"type": "text", "text": "four"}, {"type": "image_url"}, 7]
    messages = [{"content": "x" * 36}, {"content": parts}, {"content": None}, "odd"]
    asked = read_asked(json.dumps({"model": "m", "messages": messages, "max_completion_tokens": 4, "n": 3}).encode())
    assert asked.least_use == {"REQUESTS": 1, "TOKENS_IN": 11, "TOKENS_OUT": 12}


def test_lines_pass_unread_wherever_they_are_cut() -> None:
    text = 'data: {"choices":[{"delta":{"content":"\\"usage\\":{ \\"error\\": [DONE] ü"}}],"usage":null}\r\n\r\n'
    use = 'data: {"choices":[],"usage": {"prompt_tokens":5,"completion_tokens":1}}\n\n'
    sent = (text + use + "data: [DONE]\n\n").encode()
    for step in (1, 3, 7, len(sent)):
        passage = Passage(keeps_use=False)
        passed, at = b"", 0
        while not passage.has_ended:
            passed += passage.lines(sent[at : at + step])
            at += step
        assert passed == text.encode() + b"\n" + b"data: [DONE]\n\n"
        assert (passage.prompt_tokens, passage.completion_tokens, passage.has_ended) == (5, 1, True)


def test_chunks_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr("espalier_chat.passage.load_chunk", lambda data: read.append(data) or load_chunk(data))
    passage = Passage()
    for _ in range(1000):
        passage.lines(b'data: {"choices":[{"delta":{"content":"word"}}],"usage":null}\n\n')
    passage.lines(b'data: {"choices":[],"usage":{"prompt_tokens":5}}\n\ndata: [DONE]\n\n')
    assert (len(read), passage.pieces) == (1, 1002)


@pytest.mark.parametrize(
    "line", [b'data: {"error": {"message": "no"}}\n', b'data: {"object": "error"}\n', b'data: {"usage": {}, oops\n']
)
def test_an_error_in_a_stream_is_found(line: bytes) -> None:
    with pytest.raises(UpstreamError):
        Passage().lines(line)
