"""Model servers that are slow, broken, huge or dying: the answer fails with a sentence without their bytes in it."""

import asyncio
import json
from typing import Any

import pytest

from espalier.chat.v1 import service_pb2 as pb
from espalier_chat.answer import Text
from espalier_chat.chunks import parse_piece
from espalier_chat.errors import UpstreamError

SECRET = "Traceback: /srv/weights/key.pem"


async def failed(chat: Any, text: str = "") -> str:
    """Sends a message; gives the sentence of the answer that failed with this text."""
    message = await chat.ask(await chat.session())
    assert message.state == pb.MESSAGE_STATE_FAILED
    assert message.text == text
    assert "Traceback" not in message.error
    return str(message.error)


async def test_a_server_that_refuses_is_told_by_its_status(chat: Any, model_server: Any) -> None:
    model_server.status, model_server.refusal = 500, {"error": {"message": SECRET}}
    assert await failed(chat) == "The model server failed with HTTP 500."
    model_server.status = 429
    assert "busy" in await failed(chat)
    model_server.status, model_server.refusal = 302, {}
    assert await failed(chat) == "The model server failed with HTTP 302."


async def test_a_conversation_that_is_too_long_says_what_to_do(chat: Any, model_server: Any) -> None:
    model_server.status = 400
    model_server.refusal = {"error": {"code": "context_length_exceeded", "message": SECRET}}
    assert "open a new session" in await failed(chat)


async def test_a_server_that_is_not_there(chat: Any, model_server: Any) -> None:
    model_server.base_url = "http://127.0.0.1:1/v1"
    assert "does not answer" in await failed(chat)


async def test_a_server_that_dies_in_the_middle_leaves_what_it_said(chat: Any, model_server: Any) -> None:
    async def dying(stream: Any) -> None:
        await stream.say("Half an ans")
        await asyncio.sleep(0.05)
        stream.die()

    model_server.script = dying
    assert "broke" in await failed(chat, "Half an ans")


async def test_a_server_that_ends_early_has_failed(chat: Any, model_server: Any) -> None:
    async def early(stream: Any) -> None:
        await stream.say("Half")

    model_server.script = early
    assert "in the middle" in await failed(chat, "Half")


async def test_an_error_in_the_stream_is_no_answer(chat: Any, model_server: Any) -> None:
    async def error(stream: Any) -> None:
        await stream.say("Well")
        await stream.event({"error": {"message": SECRET}})

    model_server.script = error
    assert "failed while it was answering" in await failed(chat, "Well")


@pytest.mark.parametrize("sent", [b"data: {broken\n\n", b"data: 3\n\n", b'data: {"choices": [{"delta": "x"}]}\n\n'])
async def test_what_is_no_chat_completion_is_refused(chat: Any, model_server: Any, sent: bytes) -> None:
    async def broken(stream: Any) -> None:
        await stream.say("Well")
        await stream.raw(sent)
        await stream.end()

    model_server.script = broken
    assert "no chat completion" in await failed(chat, "Well")


async def test_a_line_without_end_is_cut_off(chat: Any, model_server: Any, until: Any) -> None:
    async def endless(stream: Any) -> None:
        while True:
            await stream.raw(b"x" * 65536)

    model_server.script = endless
    assert "no chat completion" in await failed(chat)
    await until(lambda: model_server.running == 0)


async def test_an_answer_beyond_the_limit_ends_there(new_chat: Any, model_server: Any, until: Any) -> None:
    async def huge(stream: Any) -> None:
        while True:
            await stream.say("é" * 500)

    model_server.script = huge
    chat = await new_chat(chat_max_answer_bytes=10_000)
    assert "beyond 10000 bytes" in await failed(chat, "é" * 5000)
    await until(lambda: model_server.running == 0)


async def test_a_silent_server_is_given_up(new_chat: Any, model_server: Any, until: Any) -> None:
    async def silent(stream: Any) -> None:
        await stream.say("Hm")
        while True:
            # Comments keep connections open; they are no answer.
            await stream.raw(b": ping\n\n")
            await asyncio.sleep(0.02)

    model_server.script = silent
    chat = await new_chat(chat_idle_seconds=1.5)
    assert await failed(chat, "Hm") == "The model server sent nothing for 1.5 seconds."
    await until(lambda: model_server.running == 0)


async def test_pieces_are_cut_anywhere_by_the_network(chat: Any, model_server: Any) -> None:
    async def scattered(stream: Any) -> None:
        event = {"choices": [{"delta": {"content": "Grüße, 世界 🙂"}}]}
        data = b"data:" + json.dumps(event, ensure_ascii=False).encode() + b"\r\n\r\n"
        for byte in data:
            await stream.raw(bytes([byte]))
        await stream.end("length")

    model_server.script = scattered
    message = await chat.ask(await chat.session())
    assert (message.text, message.finish_reason) == ("Grüße, 世界 🙂", "length")


def test_half_a_surrogate_pair_and_nul_do_no_harm() -> None:
    assert parse_piece(b'{"choices": [{"delta": {"content": "a\\ud83d"}}]}').text == "a?"
    assert parse_piece(b'{"choices": [{"delta": {"content": "a\\u0000b"}}]}').text == "ab"


def test_events_without_text_add_none() -> None:
    for data in (b"{}", b'{"choices": []}', b'{"choices": [{"delta": {"role": "assistant", "content": null}}]}'):
        assert parse_piece(data).text == ""
    with pytest.raises(UpstreamError):
        parse_piece(b"[]")


def test_text_is_read_from_any_offset() -> None:
    text, whole = Text(), "".join(chr(97 + number % 26) for number in range(100))
    for start in range(0, 100, 7):
        text.append(whole[start : start + 7])
    for _ in range(2):
        for offset in range(101):
            assert text.beyond(offset, 1000) == whole[offset:]
            assert text.beyond(offset, 10) == whole[offset : offset + 10]
        assert text.whole() == whole
    assert text.beyond(200, 10) == ""
