"""The server as an OpenAI client meets it: a real process, real HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

MESSAGES = [{"role": "user", "content": "How are you?"}]


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 40} | fields
    return client.post("/v1/chat/completions", json=body)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_it_says_which_model_it_has(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 100_000)
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/v1/models/other").status_code == 404


def test_an_answer_in_one_piece_has_text_reason_and_usage(client: httpx.Client, sentence: str) -> None:
    answer = ask(client).json()
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith(sentence)
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 40
    assert usage["total_tokens"] == usage["prompt_tokens"] + 40
    assert (answer["object"], answer["model"]) == ("chat.completion", "tiny")


def test_a_stream_has_the_same_text_in_whole_characters(client: httpx.Client) -> None:
    whole = ask(client).json()["choices"][0]["message"]["content"]
    streamed = ask(client, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = events(streamed)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == whole
    assert "\ufffd" not in streamed.text
    assert "🙂" in whole
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "length"
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert not any("usage" in chunk for chunk in chunks)


def test_a_stream_tells_the_usage_when_asked(client: httpx.Client) -> None:
    chunks = events(ask(client, stream=True, max_tokens=5, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize("limit", range(1, 12))
def test_an_answer_cut_within_a_character_shows_no_half_of_it(client: httpx.Client, sentence: str, limit: int) -> None:
    content = ask(client, max_tokens=limit).json()["choices"][0]["message"]["content"]
    assert sentence.startswith(content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", [" ", ["🙂"], ["nowhere", "🙂 , well", ","]])
def test_a_stop_text_ends_the_answer_and_is_not_shown(
    client: httpx.Client, sentence: str, stream: bool, stop: Any
) -> None:
    answer = ask(client, stop=stop, stream=stream)
    stops = [stop] if isinstance(stop, str) else stop
    places = [sentence.find(text) for text in stops if text in sentence]
    chunks = events(answer) if stream else []
    content = text_of(chunks) if stream else answer.json()["choices"][0]["message"]["content"]
    assert content == sentence[: min(places)]
    reason = chunks[-1]["choices"][0]["finish_reason"] if stream else answer.json()["choices"][0]["finish_reason"]
    assert reason == "stop"


def test_unknown_fields_and_nulls_are_no_obstacle(client: httpx.Client) -> None:
    answer = ask(
        client, temperature=None, top_p=None, stop=None, stream=None, n=1, user="me", frequency_penalty=9, seed=4
    )
    assert answer.status_code == 200
    content = [{"type": "text", "text": "How "}, {"type": "text", "text": "are you?"}]
    parts = ask(client, messages=[{"role": "user", "content": content}]).json()
    assert parts["usage"]["prompt_tokens"] == ask(client).json()["usage"]["prompt_tokens"]
    assert ask(client, model=None, max_tokens=None, max_completion_tokens=3).json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": None}, "messages", "list"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "not 'tool'"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "string"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "text alone"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content", "surrogate"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"temperature": True}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"seed": 2**70}, "seed", ""),
        ({"stop": ""}, "stop", "none of them empty"),
        ({"stop": [1]}, "stop", "list of texts"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": 1}, "stream_options", ""),
        ({"n": 2}, "n", "one answer"),
    ],
)
def test_wrong_values_are_named(client: httpx.Client, fields: dict[str, Any], param: str, words: str) -> None:
    body = {"model": "tiny", "messages": MESSAGES} | fields
    answer = client.post("/v1/chat/completions", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"messages": NaN}', b'{"messages": 1}']
)
def test_bodies_that_are_no_request_are_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_other_paths_and_methods_get_the_same_kind_of_error(client: httpx.Client) -> None:
    for answer in (client.get("/v1/nothing"), client.get("/v1/chat/completions"), ask(client, model="gpt-4")):
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "'gpt-4'" in ask(client, model="gpt-4").json()["error"]["message"]


def test_messages_that_do_not_fit_are_told_with_both_lengths(client: httpx.Client) -> None:
    answer = ask(client, messages=[{"role": "user", "content": "q" * 100_001}])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "100000" in error["message"]
    assert ask(client, messages=[{"role": "user", "content": "q" * (5 << 20)}]).status_code == 413


def test_an_answer_nobody_reads_makes_way_for_the_next(client: httpx.Client, server: Any) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 90_000}
    with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
        next(answer.iter_bytes())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + "/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=0.3))
    started = time.monotonic()
    assert ask(client, max_tokens=5).status_code == 200
    assert time.monotonic() - started < 60  # the answers left behind would have taken minutes


def test_answers_wait_for_each_other(client: httpx.Client, server: Any) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 90_000, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as first:
        pieces = first.iter_bytes()
        next(pieces)
        with httpx.stream(
            "POST", server.url + "/v1/chat/completions", json=body | {"max_tokens": 3}, timeout=60
        ) as second:
            next(pieces)
            first.close()
            assert second.read().count(b"data: ") >= 3


def test_who_leaves_learns_what_the_answer_took(client: httpx.Client) -> None:
    whole = ask(client, max_tokens=30).json()["usage"]
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 90_000, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body, headers={"X-Request-Id": "left-1"}) as answer:
        pieces = answer.iter_text()
        seen = "".join(next(pieces) for _ in range(3))
    deadline = time.monotonic() + 120
    while (asked := client.get("/v1/usage/left-1")).status_code == 409:
        assert time.monotonic() < deadline, "the answer goes on"
    used = asked.json()
    assert used["prompt_tokens"] == whole["prompt_tokens"]
    assert seen.count("data: ") - 1 <= used["completion_tokens"] < 90_000
    assert client.get("/v1/usage/left-1").json() == used
    assert client.get("/v1/usage/nobody").status_code == 404
