"""The OpenAI API below /v1: its own client reads the answers, and whatever goes wrong is told in its words."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from espalier_common import errors
from espalier_common.errors import FieldViolation
from espalier_gateway.openai.errors import error_response

from .running import RunningGateway, StartGateway

CHAT = "/v1/chat/completions"
ASKED: Any = {"model": "mine", "messages": [{"role": "user", "content": "Hello?"}]}
WHOLE = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"mine",  "choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"Hi."}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
CHUNK = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"mine",'
    b'"choices":[{"index":0,"delta":{"content":"Hi "}}]}\n\n'
)
DONE = b"data: [DONE]\n\n"


class QuotaExceeded(errors.ResourceExhausted):
    reason = "QUOTA_EXCEEDED"


class ModelNotReady(errors.Unavailable):
    reason = "MODEL_NOT_READY"


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"http://{gateway.address}/v1"
    async with openai.AsyncOpenAI(api_key=gateway.token(), base_url=url, max_retries=0, timeout=20) as client:
        yield client


def error_of(answer: httpx.Response) -> Any:
    """The error, once it is known that the answer is one as OpenAI has them."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


async def test_models_that_answer_are_listed_and_found_by_name_or_id(
    gateway: RunningGateway, client: openai.AsyncOpenAI
) -> None:
    models = [model async for model in client.models.list()]
    assert [(model.id, model.object, model.created) for model in models] == [
        ("mine", "model", 1_800_000_000),
        ("yours", "model", 1_800_000_000),
    ]
    assert (await client.models.retrieve("yours")).id == "yours"
    found: Any = await client.models.retrieve("018f6e1c-0b0a-7c3e-9d5a-0242ac120001")
    assert (found.id, found.deployment_id) == ("yours", "018f6e1c-0b0a-7c3e-9d5a-0242ac120001")


@pytest.mark.parametrize("name", ["nobody", "018f6e1c-0b0a-7c3e-9d5a-0242ac12000f", "a/b", "%00", "x" * 300, ""])
async def test_a_model_that_is_not_there_is_not_found(gateway: RunningGateway, name: str) -> None:
    answer = await gateway.client_for().get(f"/v1/models/{name}")
    assert answer.status_code == 404
    assert (error_of(answer)["code"], error_of(answer)["param"]) == ("model_not_found", "model")


async def test_a_model_that_loads_is_worth_another_try_and_one_that_is_gone_is_not(gateway: RunningGateway) -> None:
    loading = await gateway.client_for().get("/v1/models/loading")
    assert (loading.status_code, loading.headers["retry-after"]) == (503, "5")
    assert "Being launched." in error_of(loading)["message"]
    gone = await gateway.client_for().get("/v1/models/gone")
    assert (gone.status_code, gone.headers["x-should-retry"]) == (503, "false")
    assert "retry-after" not in gone.headers
    assert "x-should-retry" not in loading.headers


async def test_a_whole_answer_comes_as_the_model_server_wrote_it(
    gateway: RunningGateway, client: openai.AsyncOpenAI
) -> None:
    fake = gateway.fakes["completions"]
    fake.content_type, fake.pieces = "application/json", [b"", WHOLE[:50], WHOLE[50:]]
    completion = await client.chat.completions.create(**ASKED, extra_body={"nobody_knows": [1]})
    assert completion.choices[0].message.content == "Hi."
    assert json.loads(fake.requests[-1].content) == {**ASKED, "nobody_knows": [1]}
    answer = await gateway.client_for().post(CHAT, json=ASKED)
    assert answer.content == WHOLE
    assert answer.headers["content-type"] == "application/json"


async def test_a_stream_comes_as_the_model_server_wrote_it(gateway: RunningGateway, client: openai.AsyncOpenAI) -> None:
    fake = gateway.fakes["completions"]
    fake.pieces = [b"", CHUNK, CHUNK + CHUNK, DONE]
    stream = await client.chat.completions.create(**ASKED, stream=True)
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["Hi "] * 3
    answer = await gateway.client_for().post(CHAT, json=ASKED)
    assert answer.content == b"".join(fake.pieces)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"]


async def test_an_error_after_the_beginning_is_the_last_event(
    gateway: RunningGateway, client: openai.AsyncOpenAI
) -> None:
    fake = gateway.fakes["completions"]
    fake.pieces, fake.error = [CHUNK[:-1]], errors.Unavailable("The model server went away.", retry_after=2)
    got = []

    async def read() -> None:
        async for chunk in await client.chat.completions.create(**ASKED, stream=True):
            got.append(chunk)

    with pytest.raises(openai.APIError, match="went away"):
        await read()
    assert len(got) == 1
    answer = await gateway.client_for().post(CHAT, json=ASKED)
    assert answer.status_code == 200
    last = json.loads(answer.text.strip().split("\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"


async def test_an_error_before_it_has_its_status_even_where_a_part_is_there_already(gateway: RunningGateway) -> None:
    fake = gateway.fakes["completions"]
    fake.content_type, fake.pieces = "application/json", [WHOLE[:50]]
    fake.error = errors.Unavailable("The model server went away.", retry_after=2)
    answer = await gateway.client_for().post(CHAT, json=ASKED)
    assert (answer.status_code, error_of(answer)["message"]) == (503, "The model server went away.")


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (errors.PermissionDenied("chat.fly"), openai.PermissionDeniedError, "insufficient_permissions", None),
        (errors.Unauthenticated("The key was revoked."), openai.AuthenticationError, "invalid_api_key", None),
        (
            errors.InvalidArgument("is too hot", violations=[FieldViolation("temperature", "is too hot")]),
            openai.BadRequestError,
            "invalid_argument",
            "temperature",
        ),
        (errors.InvalidArgument("long", metadata={"code": "too_long"}), openai.BadRequestError, "too_long", None),
        (QuotaExceeded("No tokens left.", retry_after=7), openai.RateLimitError, "insufficient_quota", None),
        (ModelNotReady("It loads.", retry_after=5), openai.InternalServerError, "model_not_ready", "model"),
        (RuntimeError("secret cause"), openai.InternalServerError, "internal", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_each_error_is_of_its_class_for_the_client(
    gateway: RunningGateway, client: openai.AsyncOpenAI, error: Any, kind: Any, code: str, param: str | None
) -> None:
    gateway.fakes["completions"].error = error
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(**ASKED)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert "secret cause" not in str(caught.value)
    if seconds := getattr(error, "retry_after", None):
        assert caught.value.response.headers["retry-after"] == str(seconds)
    assert caught.value.request_id


def test_who_must_wait_for_tomorrow_is_told_not_to_try_again() -> None:
    assert error_response(QuotaExceeded("No.", retry_after=3600)).headers["x-should-retry"] == "false"
    assert error_response(QuotaExceeded("Never.")).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in error_response(QuotaExceeded("No.", retry_after=3)).headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/%ff%00", 404),
        ("DELETE", "/v1/models/mine", 405),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
    ],
)
async def test_every_path_answers_in_the_same_words(
    gateway: RunningGateway, method: str, path: str, status: int
) -> None:
    answer = await gateway.client_for().request(method, path)
    assert answer.status_code == status
    assert error_of(answer)["type"] == "invalid_request_error"


async def test_a_key_is_needed_and_a_cookie_is_none(gateway: RunningGateway) -> None:
    gateway.client.cookies.set("espalier_access", gateway.token())
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/models/mine"), ("POST", CHAT)):
        answer = await gateway.client.request(method, path)
        assert answer.status_code == 401
        assert error_of(answer)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"]
        answer = await gateway.client.request(method, path, headers={"authorization": "Basic YTpi"})
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")


async def test_bodies_that_are_none_are_refused_in_the_same_words(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_body_bytes=2000)
    client = gateway.client_for()
    as_json = {"content-type": "application/json"}
    answers = [
        await client.post(CHAT, content=b"a=b"),
        await client.post(CHAT, headers=as_json),
        await client.post(CHAT, content=b"x" * 3000, headers=as_json),
        await client.get("/v1/models", headers={"host": "evil.example"}),
        await client.post(CHAT, json=ASKED, headers={"origin": "https://evil.example"}),
    ]
    assert [answer.status_code for answer in answers] == [415, 400, 413, 400, 403]
    assert [error_of(answer)["type"] for answer in answers] == ["invalid_request_error"] * 5
    assert gateway.fakes["completions"].requests == []


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
async def test_a_client_that_goes_ends_the_call(gateway: RunningGateway, content_type: str) -> None:
    fake = gateway.fakes["completions"]
    fake.content_type, fake.pieces, fake.hold = content_type, [CHUNK], True
    asking = asyncio.create_task(gateway.client_for().post(CHAT, json=ASKED))
    async with asyncio.timeout(60):
        while fake.sent == 0:
            await asyncio.sleep(0.01)
        assert not fake.cancelled.is_set()
        asking.cancel()
        assert await fake.cancelled.wait()


async def test_a_silent_stream_has_heartbeats_and_a_gateway_that_stops_says_so(gateway: RunningGateway) -> None:
    fake = gateway.fakes["completions"]
    fake.pieces, fake.hold = [CHUNK], True
    got = b""
    async with gateway.client_for().stream("POST", CHAT, json=ASKED) as answer:
        async for data in answer.aiter_raw():
            got += data
            if b": heartbeat\n\n" in got and not gateway.server.should_exit:
                gateway.server.leave()
    assert got.startswith(CHUNK)
    assert b"being restarted" in got.split(b"\n\n")[-2]
    await fake.cancelled.wait()
