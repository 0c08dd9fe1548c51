"""ETag and If-Match: the states that changes are bound to."""

import pytest

from .fakes import RUN_ID
from .running import RunningGateway

PATH = f"/api/v1/users/{RUN_ID}"


@pytest.mark.parametrize("header", ['"0123abc"', "0123abc"])
async def test_a_change_carries_the_state_that_the_caller_saw(gateway: RunningGateway, header: str) -> None:
    answer = await gateway.client_for().patch(PATH, json={"display_name": "Ada"}, headers={"if-match": header})

    assert answer.status_code == 200, answer.text
    request = gateway.fakes["users"].requests[0]
    assert (request.user.etag, list(request.update_mask.paths)) == ("0123abc", ["display_name"])
    assert answer.headers["etag"] == '"0123abc"'


async def test_a_star_matches_every_state(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().patch(PATH, json={"display_name": "Ada"}, headers={"if-match": "*"})

    assert answer.status_code == 200
    assert gateway.fakes["users"].requests[0].user.etag == ""
    assert "etag" not in answer.headers


@pytest.mark.parametrize("header", ['W/"0123 abc"', '"' + "x" * 65 + '"', '"a", "b"'])
async def test_what_is_no_state_of_ours_matches_none(gateway: RunningGateway, header: str) -> None:
    answer = await gateway.client_for().patch(PATH, json={"display_name": "Ada"}, headers={"if-match": header})

    assert (answer.status_code, answer.json()["reason"]) == (412, "NO_SUCH_STATE")
    assert not gateway.fakes["users"].requests


async def test_what_has_no_states_is_not_changed_under_a_condition(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().post(f"/api/v1/training/runs/{RUN_ID}:stop", headers={"if-match": '"0123"'})

    assert answer.status_code == 412
    assert not gateway.fakes["runs"].requests


async def test_reading_is_not_bound_to_a_state(gateway: RunningGateway) -> None:
    answer = await gateway.client_for().get("/api/v1/me", headers={"if-match": '"0123"'})

    assert answer.status_code == 200
