"""Server streams as files: CSV that no spreadsheet runs, and JSON Lines."""

import csv
import io
import json

import httpx
import pytest

from espalier.auth.v1 import audit_pb2
from espalier_common import errors

from .running import RunningGateway

EXPORT = "/api/v1/audit-events:export"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def event(**fields: object) -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(**fields)  # type: ignore[arg-type]


async def test_a_stream_becomes_a_csv_file(gateway: RunningGateway) -> None:
    gateway.fakes["audit"].events = [event(sequence=1, actor_name='A "b", c\nd', before='{"a":1}'), event(sequence=2)]
    answer = await gateway.client_for().get(f"{EXPORT}?format=csv&actor=ada")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-events.csv"'
    assert answer.headers["cache-control"] == "no-store"
    found = rows(answer.text)
    assert [row["sequence"] for row in found] == ["1", "2"]
    assert (found[0]["actor_name"], found[0]["before"]) == ('A "b", c\nd', '{"a":1}')
    assert gateway.fakes["audit"].requests[-1].actor == "ada"


@pytest.mark.parametrize("accept", ["application/jsonl", "application/x-ndjson, text/csv;q=0.5"])
async def test_a_stream_becomes_a_file_of_json_lines(gateway: RunningGateway, accept: str) -> None:
    gateway.fakes["audit"].events = [event(sequence=1, actor_name="=1+1"), event(sequence=2)]
    answer = await gateway.client_for().get(EXPORT, headers={"accept": accept})
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-events.jsonl"'
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [(row["sequence"], row["actor_name"]) for row in found] == [(1, "=1+1"), (2, "")]


@pytest.mark.parametrize("first", list("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))
async def test_a_cell_that_a_spreadsheet_would_run_is_led_by_an_apostrophe(gateway: RunningGateway, first: str) -> None:
    gateway.fakes["audit"].events = [event(sequence=1, actor_name=f"{first}HYPERLINK(1)", target="users/=1")]
    answer = await gateway.client_for().get(EXPORT, headers={"accept": "text/html, text/csv;q=0.9"})
    [row] = rows(answer.text)
    assert (row["actor_name"], row["target"]) == (f"'{first}HYPERLINK(1)", "users/=1")


async def test_an_empty_stream_is_a_file_with_its_head_alone(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(f"{EXPORT}?format=csv")
    assert answer.text.startswith("id,sequence,time,service,actor_id")
    assert rows(answer.text) == []


async def test_many_rows_come_whole(gateway: RunningGateway) -> None:
    gateway.fakes["audit"].events = [event(sequence=number, after="x" * 500) for number in range(3000)]
    answer = await gateway.client_for().get(f"{EXPORT}?format=csv")
    assert [row["sequence"] for row in rows(answer.text)] == [str(number) for number in range(3000)]


async def test_an_error_before_the_first_row_is_a_problem(gateway: RunningGateway) -> None:
    gateway.fakes["audit"].error = errors.PermissionDenied("auth.audit.export")
    answer = await gateway.client_for().get(f"{EXPORT}?format=csv")
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_error_after_rows_breaks_the_file_off(gateway: RunningGateway) -> None:
    gateway.fakes["audit"].events = [event(sequence=number, after="x" * 500) for number in range(3000)]
    gateway.fakes["audit"].error = errors.Unavailable("away")
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.client_for().get(f"{EXPORT}?format=csv")


async def test_an_unknown_format_is_a_violation(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(f"{EXPORT}?format=xlsx")
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "format"


async def test_without_a_format_a_stream_is_one_of_events(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(EXPORT)
    assert answer.headers["content-type"].startswith("text/event-stream")
