"""The form with which an identity provider tells that a session there has ended."""

from typing import Any

import httpx
import pytest

from .running import RunningGateway

PATH = "/api/v1/auth/oidc/corporate/backchannel-logout"
FORM = {"content-type": "application/x-www-form-urlencoded"}


async def test_a_good_token_is_answered_with_200_and_kept_nowhere(gateway: RunningGateway) -> None:
    # As a provider sends it, and with parameters that are none of ours.
    for form in ({"logout_token": "good"}, {"logout_token": "good", "state": "x"}):
        answer = await gateway.client.post(PATH, data=form)
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    request = gateway.fakes["oidc"].requests[-1]
    assert (request.provider, request.logout_token) == ("corporate", "good")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"data": {"logout_token": "forged"}}, "cannot be trusted"),
        ({"data": {"logout_token": ["good", "good"]}}, "one logout_token"),
        ({"data": {}, "headers": FORM}, "one logout_token"),
        ({"data": {"id_token": "good"}}, "one logout_token"),
        ({"content": b"logout_token=%ff", "headers": FORM}, "UTF-8"),
        ({"content": b"logout_token=good&" * 1001, "headers": FORM}, "parameters"),
        ({"json": {"logout_token": "good"}}, "comes as a form"),
        ({"content": b"logout_token=good"}, "comes as a form"),
    ],
)
async def test_anything_else_is_answered_with_400_and_why(
    gateway: RunningGateway, sent: dict[str, Any], said: str
) -> None:
    answer = await gateway.client.post(PATH, **sent)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert said in answer.json()["error_description"]
    assert answer.headers["cache-control"] == "no-store"


async def test_what_is_too_large_or_no_post_or_of_a_foreign_page_is_refused(gateway: RunningGateway) -> None:
    async def status(method: str, **sent: Any) -> int:
        answer: httpx.Response = await gateway.client.request(method, PATH, **sent)
        return answer.status_code

    assert await status("POST", data={"logout_token": "x" * 40_000}) == 413
    assert await status("GET", params={"logout_token": "good"}) == 405
    assert await status("POST", data={"logout_token": "good"}, headers={"origin": "https://evil.example.org"}) == 403
    assert gateway.fakes["oidc"].requests == []
