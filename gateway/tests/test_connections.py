"""What is no request, or never becomes one, is answered as every other error is, and holds nothing for long."""

import asyncio
import socket
from typing import Any

import orjson
import pytest

from espalier_gateway.connection import MAX_HEADER_BYTES, MAX_TARGET_BYTES

from .running import RunningGateway, StartGateway

HOST = b"Host: localhost\r\n"
CHUNKED = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"


class Answered:
    """The first answer to raw bytes, until the server closed the connection."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def json(self) -> Any:
        return orjson.loads(self.body)


async def send(gateway: RunningGateway, *pieces: bytes) -> bytes:
    """All that comes until the server closes."""
    reader, writer = await connect(gateway)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


async def connect(gateway: RunningGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.address.rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


NONSENSE = {
    "no request": (b"nonsense\r\n\r\n", 405),
    "an unknown method": (b"BREW /api/v1/me HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", 405),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an unknown version": (b"GET /api/v1/me HTTP/9.9\r\n" + HOST + b"\r\n", 400),
    "no path": (b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "bytes in the path": (b"GET /api/\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a broken header": (b"GET /api/v1/me HTTP/1.1\r\nHo st: localhost\r\n\r\n", 400),
    "two lengths": (b"POST /api/v1/me HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length that is none": (b"POST /api/v1/me HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "a length beside chunks": (CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "another transfer coding": (CHUNKED.replace(b"chunked", b"xchunked") + b"\r\n0\r\n\r\n", 400),
    "a broken chunk": (CHUNKED + b"\r\nzz\r\n", 400),
    "a chunk that never begins": (CHUNKED + b"\r\n1;" + b"x" * 1_000_000, 400),
    "a trailer without end": (CHUNKED + b"\r\n0\r\nX: " + b"x" * 1_000_000, 400),
    "a long path": (b"GET /api/v1/" + b"x" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a path without end": (b"GET /api/v1/" + b"x" * 1_000_000, 414),
    "a long header": (b"GET /api/v1/me HTTP/1.1\r\nA: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n", 431),
    "a header without end": (b"GET /api/v1/me HTTP/1.1\r\nA: " + b"x" * 1_000_000, 431),
    "many headers": (b"GET /api/v1/me HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_what_is_no_request_is_a_problem_that_says_what_is_wrong(gateway: RunningGateway, name: str) -> None:
    sent, status = NONSENSE[name]
    answer = Answered(await send(gateway, sent))
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert int(answer.headers["content-length"]) == len(answer.body)
    if status == 405:
        assert "GET" in answer.headers["allow"]
    if status in {414, 431}:
        assert str(MAX_TARGET_BYTES if status == 414 else MAX_HEADER_BYTES) in problem["detail"]


async def test_below_v1_it_is_told_as_openai_does(gateway: RunningGateway) -> None:
    answer = Answered(await send(gateway, b"GET /v1/models?" + b"x" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n\r\n"))
    assert answer.status == 414
    assert answer.json()["error"]["code"] == "target_too_long"
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Authorization: Bearer x\r\nX-Request-Id: mine-1\r\n"
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = Answered(await send(gateway, head, b"zz\r\n"))
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert answer.headers["x-request-id"] == "mine-1"


async def test_requests_on_the_way_are_answered_before_what_is_none_ends_the_connection(
    gateway: RunningGateway,
) -> None:
    request = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    raw = await send(gateway, request + b"nonsense\r\n\r\n")
    assert Answered(raw).status == 200
    assert raw.count(b"HTTP/1.1 ") == 1
    both = request + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert (await send(gateway, both)).count(b"HTTP/1.1 200") == 2
    upgrade = request.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    assert Answered(await send(gateway, upgrade, request)).status == 200


async def test_fields_after_a_chunked_body_are_no_headers(gateway: RunningGateway) -> None:
    token = gateway.token().encode()
    head = (
        b"POST /api/v1/auth/refresh HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    )
    trailer = b"0\r\nHost: evil.example\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
    answer = Answered(await send(gateway, head + b"\r\n" + trailer))
    assert answer.json().get("reason") != "HOST_REFUSED"


async def test_odd_requests_get_an_answer_of_ours(gateway: RunningGateway) -> None:
    close = b"Connection: close\r\n\r\n"
    for line, status in (
        (b"GET /api/v1/me HTTP/1.0\r\n", 400),
        (b"GET /api/v1/me HTTP/1.1\r\n", 400),
        (b"GET /api/v1/me\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST, 404),
        (b"OPTIONS /api/v1/me HTTP/1.1\r\n" + HOST, 405),
        (b"PROPFIND /api/v1/me HTTP/1.1\r\n" + HOST, 405),
        (b"TRACE /api/v1/me HTTP/1.1\r\n" + HOST, 405),
        (b"DELETE /healthz HTTP/1.1\r\n" + HOST, 405),
        (b"GET /api/v1/users/%00 HTTP/1.1\r\n" + HOST, 401),
        (b"GET /api/v1/users/%c0%af%c0%ae HTTP/1.1\r\n" + HOST, 400),
        (b"GET /%00 HTTP/1.1\r\n" + HOST, 404),
        (b"GET /api/v1/../../etc/passwd HTTP/1.1\r\n" + HOST, 404),
        (b"GET /" + b"a/" * 2000 + b" HTTP/1.1\r\n" + HOST, 404),
        (b"HEAD /api/v1/me HTTP/1.1\r\n" + HOST, 401),
    ):
        answer = Answered(await send(gateway, line + close))
        assert answer.status == status, (line, answer.status, answer.body)
        if status == 405:
            assert answer.headers["allow"]
        if not line.startswith(b"HEAD"):
            assert answer.json()["status"] == status


async def test_a_body_is_asked_for_when_its_sender_waits_to_be(gateway: RunningGateway) -> None:
    head = b"POST /api/v1/auth/login HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 2\r\n"
    reader, writer = await connect(gateway)
    writer.write(head + b"Connection: close\r\nExpect: 100-continue\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert Answered(await asyncio.wait_for(reader.read(), 60)).status == 400
    writer.close()


async def test_who_sends_his_headers_byte_by_byte_is_told_that_he_is_too_slow(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(head_seconds=1.5)
    for begun in (b"", b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"):
        reader, writer = await connect(gateway)
        writer.write(begun)
        if begun:
            await asyncio.wait_for(reader.readuntil(b"}"), 60)
        trickle = asyncio.create_task(_trickle(writer, b"GET /api/v1/me HTTP/1.1\r\nX: "))
        raw = await asyncio.wait_for(reader.read(), 60)
        trickle.cancel()
        answer = Answered(raw)
        assert (answer.status, answer.json()["reason"]) == (408, "REQUEST_TOO_SLOW")
        writer.close()


async def test_who_asks_nothing_is_told_nothing_and_let_go(start_gateway: StartGateway) -> None:
    assert await send(await start_gateway(head_seconds=0.2)) == b""


async def test_the_rest_of_a_body_that_was_refused_is_not_waited_for_for_ever(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(head_seconds=1.5, max_body_bytes=1024)
    reader, writer = await connect(gateway)
    head = b"POST /api/v1/auth/login HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    writer.write(head + b"Content-Length: 100000\r\n\r\n")
    trickle = asyncio.create_task(_trickle(writer, b""))
    answer = Answered(await asyncio.wait_for(reader.read(), 60))
    trickle.cancel()
    assert answer.status == 413
    writer.close()


async def test_a_connection_lives_on_when_such_a_body_has_come(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_body_bytes=1024)
    reader, writer = await connect(gateway)
    head = b"POST /api/v1/auth/login HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    writer.write(head + b"Content-Length: 5000\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"}"), 60)
    writer.write(b"x" * 5000)
    [connection] = gateway.server.server_state.connections
    async with asyncio.timeout(60):
        while connection._has_sent or not connection._in_head:
            await asyncio.sleep(0.01)
    assert not connection._is_too_slow(asyncio.get_running_loop().time() + 3600), "it waits for the next request"
    writer.write(b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.read(), 60)
    writer.close()


async def test_an_upload_of_a_byte_now_and_then_is_cut_off(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(upload_idle_seconds=1.0)
    reader, writer = await connect(gateway)
    head = b"POST /api/v1/files?filename=a HTTP/1.1\r\n" + HOST + b"Authorization: Bearer " + gateway.token().encode()
    writer.write(head + b"\r\nContent-Type: application/octet-stream\r\nContent-Length: 100000\r\n\r\n")
    trickle = asyncio.create_task(_trickle(writer, b""))
    answer = Answered(await asyncio.wait_for(reader.read(), 60))
    trickle.cancel()
    assert (answer.status, answer.json()["reason"]) == (408, "REQUEST_TOO_SLOW")
    writer.close()


async def test_who_takes_nothing_of_his_answer_is_let_go(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(stall_seconds=0.5)
    state = gateway.server.server_state
    host, port = gateway.address.rsplit(":", 1)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.setblocking(False)
        # Answers to many requests at once, until nothing more goes through.
        request = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
        await asyncio.get_running_loop().sock_sendall(client, request * 40)
        async with asyncio.timeout(60):
            while state.connections or state.tasks:
                await asyncio.sleep(0.05)
        # Nobody closed it from here.
        assert client.fileno() >= 0
        assert not state.connections


async def test_of_requests_that_were_sent_together_the_first_ends_too_when_the_client_goes(
    gateway: RunningGateway,
) -> None:
    gateway.fakes["runs"].hold = True
    token = gateway.token().encode()
    watch = b"GET /api/v1/training/runs/018f6e1c-0b0a-7c3e-9d5a-0242ac120003:watch HTTP/1.1\r\n" + HOST
    watch += b"Authorization: Bearer " + token + b"\r\n\r\n"
    reader, writer = await connect(gateway)
    writer.write(watch + b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.transport.abort()
    async with asyncio.timeout(60):
        while gateway.server.server_state.tasks:
            await asyncio.sleep(0.02)


async def _trickle(writer: asyncio.StreamWriter, first: bytes) -> None:
    writer.write(first)
    while True:
        await asyncio.sleep(0.05)
        writer.write(b"x")
