"""RFC 9700 §4.14: a refresh token is used once, and one that is used again ends its session."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from people import user
from platform_process import Api, Platform

AT_ONCE = 20


@pytest.fixture(scope="module")
def member(platform: Platform) -> Api:
    return user(platform, "rita", "tester")


def signed_in(member: Api) -> str:
    body = {"username": "rita", "password": "the password of rita 71"}
    return str(member.call("POST", "/api/v1/auth/login", body)["refresh_token"])


def refresh(member: Api, token: str) -> httpx.Response:
    return member.http.post("/api/v1/auth/refresh", json={"refresh_token": token}, headers={"authorization": ""})


def test_each_refresh_gives_another_token(member: Api) -> None:
    tokens = [signed_in(member)]
    for _ in range(3):
        tokens.append(refresh(member, tokens[-1]).json()["refresh_token"])
    assert len(set(tokens)) == 4


def test_any_ancestor_seen_again_ends_the_session_and_no_other(member: Api) -> None:
    other = signed_in(member)
    for generation in (0, 1):
        tokens = [signed_in(member)]
        for _ in range(2):
            tokens.append(refresh(member, tokens[-1]).json()["refresh_token"])
        assert refresh(member, tokens[generation]).status_code == 401
        assert refresh(member, tokens[-1]).status_code == 401
    assert refresh(member, other).status_code == 200


def test_of_many_at_once_through_the_gateway_one_succeeds(member: Api) -> None:
    for _ in range(10):
        token = signed_in(member)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda _, token=token: refresh(member, token).status_code, range(AT_ONCE)))
        assert sorted(answers) == [200] + [401] * (AT_ONCE - 1)


def test_a_signed_out_session_gives_nothing_more(member: Api) -> None:
    token = signed_in(member)
    member.call("POST", "/api/v1/auth/logout", {"refresh_token": token})
    assert refresh(member, token).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "' OR ''='", "é" * 43, "\u0000", "x" * 100_000])
def test_a_made_up_token_is_refused(member: Api, token: str) -> None:
    assert refresh(member, token).status_code in {400, 401}


def test_used_tokens_are_told_from_unknown_ones_to_nobody(member: Api) -> None:
    used = signed_in(member)
    refresh(member, used)
    answers = [refresh(member, token) for token in (used, "B" * 43)]
    problems = [{name: value for name, value in a.json().items() if name != "request_id"} for a in answers]
    assert problems[0] == problems[1]
    assert answers[0].status_code == answers[1].status_code == 401
