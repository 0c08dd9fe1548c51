"""REST out of the contract: path, query, body and answers."""

import gzip
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from .fakes import RUN_ID
from .running import RunningGateway, StartGateway

SPEC = {"stage": "STAGE_SFT", "base_model": {"hub": "tiny"}, "dataset_version_ids": [RUN_ID]}


async def test_a_path_parameter_reaches_the_service_and_the_answer_writes_defaults_out(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(f"/api/v1/training/runs/{RUN_ID}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert gateway.fakes["runs"].requests[0].run_id == RUN_ID
    assert body["id"] == RUN_ID
    assert body["state"] == "RUN_STATE_RUNNING"
    assert body["create_time"] == "2027-01-15T08:00:00.500Z"
    assert body["resumable"] is False
    assert body["attempt"] == 0
    assert body["summary"] == {}
    assert "end_time" not in body


async def test_head_answers_as_get_without_a_body(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().head(f"/api/v1/training/runs/{RUN_ID}")
    assert answer.status_code == 200
    assert answer.content == b""


async def test_query_parameters_take_numbers_and_enums_by_name_or_number(gateway: RunningGateway) -> None:
    client = gateway.client_for()
    for state in ("RUN_STATE_FAILED", "7"):
        answer = await client.get("/api/v1/training/runs", params={"page_size": "5", "state": state})
        assert answer.status_code == 200
    first, second = gateway.fakes["runs"].requests
    assert (first.page_size, first.state, second.state) == (5, 7, 7)


async def test_a_body_fills_the_field_that_the_option_names(gateway: RunningGateway) -> None:
    run = {"name": "first", "spec": SPEC, "summary": {"eval/loss": "NaN", "x": 2}}
    answer = await gateway.client_for().post("/api/v1/training/runs", json=run)
    assert answer.status_code == 200, answer.text
    assert answer.json()["summary"] == {"eval/loss": "NaN", "x": 2}
    assert answer.json()["spec"]["stage"] == "STAGE_SFT"


async def test_fields_beside_the_body_come_from_the_query(gateway: RunningGateway) -> None:
    run = {"name": "first", "spec": SPEC}
    await gateway.client_for().post("/api/v1/training/runs", json=run, params={"request_id": RUN_ID})
    assert gateway.fakes["runs"].requests[0].request_id == RUN_ID


async def test_a_custom_verb_without_a_body_is_a_request_of_defaults(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post(f"/api/v1/training/runs/{RUN_ID}:stop")
    assert answer.status_code == 200
    assert gateway.fakes["runs"].requests[0].run_id == RUN_ID
    answer = await gateway.client_for().post("/api/v1/training/runs:plan", json={"name": "x", "spec": SPEC})
    assert answer.status_code == 200


async def test_a_nested_path_parameter_and_a_field_mask_reach_the_service(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().patch(
        f"/api/v1/users/{RUN_ID}",
        json={"id": RUN_ID, "username": "ada", "display_name": "Ada", "disabled": True},
        params={"update_mask": "display_name,disabled"},
    )
    assert answer.status_code == 200, answer.text
    request = gateway.fakes["users"].requests[0]
    assert request.user.id == RUN_ID
    assert list(request.update_mask.paths) == ["display_name", "disabled"]


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"display_name": "Ada"}, ["display_name"]),
        ({"displayName": "Ada", "disabled": False, "id": RUN_ID, "etag": "x"}, ["display_name", "disabled"]),
        ({"roles": None}, ["roles"]),
    ],
)
async def test_without_a_mask_what_the_body_holds_is_what_changes(
    gateway: RunningGateway, body: dict[str, Any], changed: list[str]
) -> None:
    answer = await gateway.client_for().patch(f"/api/v1/users/{RUN_ID}", json=body)
    assert answer.status_code == 200, answer.text
    assert list(gateway.fakes["users"].requests[0].update_mask.paths) == changed


async def test_a_change_of_nothing_is_refused(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().patch(f"/api/v1/users/{RUN_ID}", json={})
    assert [each["field"] for each in answer.json()["violations"]] == ["update_mask"]


async def test_an_empty_answer_is_an_empty_object(gateway: RunningGateway) -> None:
    answer = await gateway.client.post("/api/v1/auth/logout", json={"refresh_token": "x"})
    assert (answer.status_code, answer.json()) == (200, {})


async def test_an_rpc_without_a_route_is_not_reachable(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post("/espalier.auth.v1.AuthService/IssueServiceToken", json={})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"name": 5}', "run.name"),
        ('{"spec": []}', "run.spec"),
        ('{"spec": {"stage": "STAGE_X"}}', "run.spec.stage"),
        ('{"spec": {"stage": 4294967297}}', "run.spec.stage"),
        ('{"spec": {"stage": -9223372036854775808}}', "run.spec.stage"),
        ('{"create_time": "yesterday"}', "run.create_time"),
        ('{"create_time": 5}', "run.create_time"),
        ('{"summary": {"a": "b"}}', "run.summary['a']"),
        ('{"attempt": 2147483648}', "run.attempt"),
        ('{"attempt": 1.5}', "run.attempt"),
        ('{"attempt": true}', "run.attempt"),
        ('{"resumable": "true"}', "run.resumable"),
        ('{"nonsense": 1}', "run.nonsense"),
        ('{"spec": {"base_model": {"hub": "a", "directory": "b"}}}', "run.spec.base_model.directory"),
        ("[]", "run"),
        ("5", "run"),
        ("null", "run"),
    ],
)
async def test_what_does_not_fit_is_named_by_its_field(gateway: RunningGateway, body: Any, field: str) -> None:
    answer = await gateway.client_for().post(
        "/api/v1/training/runs", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert field in [each["field"] for each in problem["violations"]]
    assert problem["reason"] == "INVALID_ARGUMENT"
    assert not gateway.fakes["runs"].requests


async def test_all_violations_are_answered_at_once(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post(
        "/api/v1/training/runs", json={"name": 1, "state": "X", "wrong": 2}, params={"other": "1"}
    )
    assert [each["field"] for each in answer.json()["violations"]] == ["run.name", "run.state", "run.wrong", "other"]


async def test_the_bounds_of_the_contract_are_answered_as_violations_of_the_service(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get("/api/v1/training/runs/not-a-uuid")
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "run_id"


@pytest.mark.parametrize("query", ["page_size=x", "page_size=1&page_size=2", "unknown=1", "state=RUN", "page_size.x=1"])
async def test_a_wrong_query_parameter_is_a_violation(gateway: RunningGateway, query: str) -> None:
    answer = await gateway.client_for().get(f"/api/v1/training/runs?{query}")
    assert answer.status_code == 400
    assert answer.json()["violations"]


async def test_a_body_may_repeat_the_path_but_not_contradict_it(gateway: RunningGateway) -> None:
    other = RUN_ID.replace("3", "4")
    answer = await gateway.client_for().patch(
        f"/api/v1/users/{RUN_ID}", json={"id": other}, params={"update_mask": "disabled"}
    )
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "user.id"


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": NaN}',
        b'{"name": 1e999}',
        b'{"attempt": 1e400}',
        b'{"name": "\\ud800"}',
        b'{"name": "\xff"}',
        b'{"name": "a", "name": "b"}',
        b'{"spec": {"a": 1, "a": 1}}',
        b"[" * 100_000,
        b'{"spec":' * 70 + b"{}" + b"}" * 70,
        b'{"attempt": ' + b"9" * 5000 + b"}",
        b'{"name": "a"',
        b"\xef\xbb\xbf{}",
        b"{'name': 1}",
    ],
)
async def test_json_that_breaks_others_is_a_plain_400(gateway: RunningGateway, body: Any) -> None:
    answer = await gateway.client_for().post(
        "/api/v1/training/runs", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_body_that_is_no_utf8_is_told_with_the_place(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post(
        "/api/v1/training/runs", content=b'{"name": "\xff"}', headers={"content-type": "application/json"}
    )
    assert "not UTF-8 from byte 11 on" in answer.json()["detail"]


async def test_a_nul_in_a_text_is_refused(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post("/api/v1/training/runs", json={"name": "a\0b", "spec": SPEC})
    assert answer.status_code == 400
    assert "NUL" in answer.text


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_of_another_type_is_415(gateway: RunningGateway, media_type: str) -> None:
    answer = await gateway.client_for().post(
        "/api/v1/training/runs", content=b"{}", headers={"content-type": media_type}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("path", ["/api/v1/training/runs", "/api/v1/files", "/v1/chat/completions"])
async def test_a_packed_body_is_415_and_told_how_to_send_it(gateway: RunningGateway, path: str) -> None:
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await gateway.client.post(path, content=gzip.compress(b"{}"), headers=packed)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


async def test_a_body_beyond_the_cap_is_413_before_it_is_read(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_body_bytes=2048)
    client = gateway.client_for()
    answer = await client.post("/api/v1/training/runs", json={"name": "x" * 4000})
    assert answer.status_code == 413

    async def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1000

    answer = await client.post("/api/v1/training/runs", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


async def test_a_body_that_never_ends_is_given_up(start_gateway: StartGateway) -> None:
    import asyncio

    gateway = await start_gateway(body_seconds=0.3)
    host, _, port = gateway.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v1/training/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    answer = await asyncio.wait_for(reader.readline(), 60)
    assert b" 408 " in answer
    writer.close()


async def test_an_unknown_path_is_404_and_another_method_405_with_allow(gateway: RunningGateway) -> None:
    answer = await gateway.client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["reason"] == "ROUTE_NOT_FOUND"
    answer = await gateway.client.delete("/api/v1/training/runs")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    answer = await gateway.client.request("TRACE", "/api/v1/training/runs")
    assert answer.status_code == 405


@pytest.mark.parametrize("tail", ["%ff", "%252e%252e", "..%5c", "a%00b", "x%23y", "a;b", "%F0%9F%98%80"])
async def test_odd_path_parameters_are_bad_requests(gateway: RunningGateway, tail: str) -> None:
    answer = await gateway.client_for().get(f"/api/v1/training/runs/{tail}")
    assert answer.status_code == 400


async def test_an_escaped_slash_stays_within_its_segment(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get("/api/v1/training/runs/a%2Fattempts")
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "run_id"


async def test_a_large_answer_is_written_whole(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get(f"/api/v1/training/runs/{RUN_ID}/metrics")
    assert len(answer.json()["points"]) == 10_000


def test_timestamps_keep_their_nanoseconds() -> None:
    from espalier_gateway.json_writer import as_value

    assert as_value(Timestamp(seconds=1, nanos=1)) == "1970-01-01T00:00:01.000000001Z"
