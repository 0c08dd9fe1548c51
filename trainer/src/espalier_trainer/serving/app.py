"""The HTTP face: /health, /v1/models and /v1/chat/completions, as OpenAI clients know them.

Who left before the end of an answer asks /v1/usage/{request id} what it took; the id is that of its X-Request-Id.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from espalier_trainer.serving.errors import ApiError
from espalier_trainer.serving.model import Finish, Sampling
from espalier_trainer.serving.protocol import MAX_BODY_BYTES, ChatRequest, parse_chat_request
from espalier_trainer.serving.worker import Answer, Used, Worker

USAGE_SECONDS = 3.0  # that a question for the use waits until the answer is over
MAX_REMEMBERED = 1000
MAX_ID_LENGTH = 128


def build_app(worker: Worker, *, served_model_name: str) -> Starlette:
    """The application; the worker is started and closed by whoever runs it."""
    api = _Api(worker, served_model_name)
    return Starlette(
        routes=[
            Route("/health", api.health),
            Route("/v1/models", api.models),
            Route("/v1/models/{name:path}", api.model),
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/usage/{request_id}", api.usage),
        ],
        exception_handlers={ApiError: _on_api_error, HTTPException: _on_http_error},
    )


class _Api:
    def __init__(self, worker: Worker, served_model_name: str) -> None:
        self._worker = worker
        self._name = served_model_name
        self._created = int(time.time())
        self._used: OrderedDict[str, asyncio.Future[Used]] = OrderedDict()

    async def health(self, _: Request) -> Response:
        if self._worker.is_ready:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "loading"}, status_code=503, headers={"Retry-After": "2"})

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._description()]})

    async def model(self, request: Request) -> Response:
        self._check_name(request.path_params["name"])
        return JSONResponse(self._description())

    async def chat(self, request: Request) -> Response:
        model = self._worker.model
        asked = parse_chat_request(await _body(request))
        self._check_name(asked.model)
        prompt = await asyncio.to_thread(model.prompt, asked.conversation())
        answer = self._worker.submit(prompt, _sampling(asked, room=model.context - len(prompt)))
        self._remember(request.headers.get("x-request-id", ""), answer)
        shape = _Shape(self._name, prompt_tokens=len(prompt))
        if asked.wants_stream:
            events = _events(answer, shape, with_usage=asked.wants_usage)
            return StreamingResponse(
                events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            )
        return await _whole(request, answer, shape)

    async def usage(self, request: Request) -> Response:
        used = self._used.get(request.path_params["request_id"])
        if used is None:
            raise ApiError("There was no such request, or it is long ago.", status=404, code="request_not_found")
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                return JSONResponse(asdict(await asyncio.shield(used)))
        except TimeoutError as error:
            raise ApiError("The answer is still being made.", status=409, code="not_over") from error

    def _remember(self, request_id: str, answer: Answer) -> None:
        if 0 < len(request_id) <= MAX_ID_LENGTH:
            self._used[request_id] = answer.used
            while len(self._used) > MAX_REMEMBERED:
                self._used.popitem(last=False)

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self._name:
            raise ApiError(
                f"There is no model {name[:200]!r} here; this server has {self._name!r}.",
                status=404,
                code="model_not_found",
                param="model",
            )

    def _description(self) -> dict[str, Any]:
        context = self._worker.model.context
        return {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "espalier",
            "max_model_len": context,
        }


@dataclass
class _Shape:
    """The frame around an answer's text."""

    model: str
    prompt_tokens: int

    def __post_init__(self) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.model}

    def completion(self, text: str, finish: Finish) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish.reason}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": self.usage(finish)}

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, finish: Finish) -> dict[str, Any]:
        return self._head | {"object": "chat.completion.chunk", "choices": [], "usage": self.usage(finish)}

    def usage(self, finish: Finish) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": finish.completion_tokens,
            "total_tokens": self.prompt_tokens + finish.completion_tokens,
        }


def _sampling(asked: ChatRequest, *, room: int) -> Sampling:
    """A token limit beyond what fits is no error: the answer then ends at the context's end, with reason `length`."""
    return Sampling(
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed,
        max_tokens=min(asked.token_limit or room, room),
        stop=tuple(asked.stop),
    )


async def _whole(request: Request, answer: Answer, shape: _Shape) -> Response:
    """The answer in one piece; a client that goes away ends it."""

    async def collect() -> JSONResponse:
        pieces = [piece async for piece in answer.pieces()]
        texts, finish = pieces[:-1], pieces[-1]
        assert isinstance(finish, Finish)  # noqa: S101 - the last piece always is
        return JSONResponse(shape.completion("".join(map(str, texts)), finish))

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(leave())
    try:
        await asyncio.wait([collecting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=499)  # nobody reads it
        return await collecting
    finally:
        answer.cancel()
        for task in (collecting, leaving):
            task.cancel()
        await asyncio.gather(collecting, leaving, return_exceptions=True)


async def _events(answer: Answer, shape: _Shape, *, with_usage: bool) -> AsyncIterator[bytes]:
    """Server-sent events; when the reader goes, Starlette closes this generator, and that ends the answer."""
    extra = {"usage": None} if with_usage else {}
    try:
        yield _event(shape.chunk({"role": "assistant", "content": ""}) | extra)
        async for piece in answer.pieces():
            if isinstance(piece, Finish):
                yield _event(shape.chunk({}, piece.reason) | extra)
                if with_usage:
                    yield _event(shape.usage_chunk(piece))
            else:
                yield _event(shape.chunk({"content": piece}) | extra)
    except ApiError as error:
        yield _event(error.body())
    finally:
        answer.cancel()
    yield b"data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _body(request: Request) -> bytes:
    """The body, as long as it is of a size that makes sense. Raises ApiError."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(f"The body is larger than {MAX_BODY_BYTES} bytes.", status=413, code="too_large")
    return bytes(body)


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    told = ApiError(f"{error.detail}.", status=error.status_code)
    return JSONResponse(told.body(), status_code=error.status_code, headers=error.headers)
