"""Server streams as Server-Sent Events."""

import asyncio
import json
from typing import Any

from espalier_common import errors

from .fakes import RUN_ID
from .running import RunningGateway, StartGateway

PATIENCE = 60.0  # seconds until a wait is in vain, however slow the machine
WATCH = f"/api/v1/training/runs/{RUN_ID}:watch"


def parse(text: Any) -> Any:
    """Events as (event, id, data) and comments as strings, as a browser would read them."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if block.startswith(":"):
            found.append(block)
        elif "data" in fields:
            found.append((fields.get("event", "message"), fields.get("id"), json.loads(fields["data"])))
    return found


async def test_a_stream_becomes_events_with_ids_and_an_end(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(WATCH)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 2000\n\n")
    events = parse(answer.text)
    assert [(kind, event_id) for kind, event_id, _ in events] == [
        ("message", "1"),
        ("message", "2"),
        ("message", "3"),
        ("end", None),
    ]
    assert events[0][2]["run"]["id"] == RUN_ID
    assert events[0][2]["points"] == []


async def test_last_event_id_goes_on_where_the_stream_broke_off(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(f"{WATCH}?cursor=1", headers={"last-event-id": "7"})
    assert [event_id for _, event_id, _ in parse(answer.text)] == ["8", "9", "10", None]


async def test_whole_numbers_are_ids_without_a_fraction(gateway: RunningGateway) -> None:
    path = f"/api/v1/training/runs/{RUN_ID}/logs:watch"
    answer = await gateway.client_for().get(path, headers={"last-event-id": "120"})
    kind, event_id, data = parse(answer.text)[0]
    assert (kind, event_id, data["next_offset"]) == ("message", "125", 125)


async def test_a_wrong_last_event_id_is_a_violation(gateway: RunningGateway) -> None:
    path = f"/api/v1/training/runs/{RUN_ID}/logs:watch"
    answer = await gateway.client_for().get(path, headers={"last-event-id": "x"})
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "Last-Event-ID"


async def test_a_post_streams_too(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post(f"/api/v1/chat/sessions/{RUN_ID}/messages", json={"text": "one two three"})
    assert [data.get("text") for _, _, data in parse(answer.text)] == ["one", "two", "three", None]


async def test_an_error_before_the_first_message_is_an_ordinary_problem(gateway: RunningGateway) -> None:
    gateway.fakes["runs"].error = errors.NotFound("run", RUN_ID)
    answer = await gateway.client_for().get(WATCH)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_error_in_the_middle_is_an_error_event_with_the_problem(gateway: RunningGateway) -> None:
    gateway.fakes["runs"].error = errors.Unavailable("The service is restarting.", retry_after=1)
    gateway.fakes["runs"].fail_after = 2
    answer = await gateway.client_for().get(WATCH)
    assert answer.status_code == 200
    kind, _, problem = parse(answer.text)[-1]
    assert (kind, problem["reason"], problem["status"]) == ("error", "UNAVAILABLE", 503)
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_a_silent_stream_carries_heartbeats(gateway: RunningGateway) -> None:
    gateway.fakes["runs"].pause = 0.5
    gateway.fakes["runs"].points = 1
    answer = await gateway.client_for().get(WATCH)
    assert ": heartbeat" in parse(answer.text)


async def test_the_call_is_cancelled_within_a_second_when_the_client_goes(gateway: RunningGateway) -> None:
    runs = gateway.fakes["runs"]
    runs.hold = True
    clock = asyncio.get_running_loop().time
    async with gateway.client_for().stream("GET", WATCH) as answer:
        await anext(answer.aiter_bytes())
        began = clock()
        await gateway.client_for().get("/healthz")
        pace = clock() - began
    began = clock()
    assert await asyncio.wait_for(runs.cancelled.wait(), PATIENCE)
    # A second, on a machine where a request takes milliseconds.
    assert clock() - began < 1 + 20 * pace


async def test_the_call_is_cancelled_too_when_nothing_was_sent_yet(gateway: RunningGateway) -> None:
    runs = gateway.fakes["runs"]
    runs.points, runs.hold = 0, True
    asking = asyncio.create_task(gateway.client_for().get(WATCH))
    async with asyncio.timeout(PATIENCE):
        while not runs.requests:
            await asyncio.sleep(0.01)
    asking.cancel()
    assert await asyncio.wait_for(runs.cancelled.wait(), PATIENCE)


async def open_and_do_not_read(gateway: RunningGateway) -> Any:
    """A raw connection whose receive buffer is small and never read."""
    import socket

    host, _, port = gateway.address.partition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    request = f"GET {WATCH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gateway.token()}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(connection, request.encode())
    return connection


async def until_steady(value: Any) -> Any:
    """Waits until a number has not changed for half a second."""
    seen, since = value(), asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - since < 0.5:
        await asyncio.sleep(0.05)
        if value() != seen:
            seen, since = value(), asyncio.get_running_loop().time()
    return seen


async def test_a_slow_reader_slows_only_its_own_stream(gateway: RunningGateway) -> None:
    runs = gateway.fakes["runs"]
    runs.points, runs.padding = 100_000, 10_000
    connection = await open_and_do_not_read(gateway)
    try:
        # What the sockets and gRPC's windows hold; far from the gigabyte that the stream has.
        assert await asyncio.wait_for(until_steady(lambda: runs.sent), PATIENCE) < 3000
        runs.points, runs.padding = 3, 0
        answer = await gateway.client_for().get(WATCH)
        assert len(parse(answer.text)) == 4
    finally:
        connection.close()
    assert await asyncio.wait_for(runs.cancelled.wait(), PATIENCE)


async def test_a_reader_that_takes_nothing_is_given_up(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(stall_seconds=0.5)
    runs = gateway.fakes["runs"]
    runs.points, runs.padding = 100_000, 10_000
    connection = await open_and_do_not_read(gateway)
    try:
        assert await asyncio.wait_for(runs.cancelled.wait(), PATIENCE)
    finally:
        connection.close()


async def test_a_stop_breaks_streams_off_without_an_end_so_that_they_are_resumed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    gateway.fakes["runs"].hold = True
    async with gateway.client_for().stream("GET", WATCH) as answer:
        pieces = answer.aiter_text()
        text = await anext(pieces)
        gateway.server.leave()
        async for piece in pieces:
            text += piece
    assert "event: end" not in text
    assert text.endswith("retry: 2000\n\n")
