"""Tokens that were taken back: refused at once where they are known, and open streams end."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from espalier_common.errors import Unauthenticated, Unavailable
from espalier_common.identity import Principal, Revoked, TokenVerifier, require_fresh
from espalier_common.revocations import Revocations
from espalier_common.rpc.client import Client, client_of, told_by_gateway
from espalier_common.testing.rpc import SigningKey


def holder(*, subject: str = "u1", session: str = "s1", issued_at: float = 100.0, kind: Any = "user") -> Principal:
    return Principal(subject, "Ann", kind, (), frozenset(), "own", session=session, issued_at=issued_at)


class Auth:
    """What auth would answer."""

    def __init__(self) -> None:
        self.answer: Mapping[str, float] = {}
        self.away = False
        self.asked = 0

    def __call__(self) -> Mapping[str, float]:
        self.asked += 1
        if self.away:
            raise ConnectionError
        return self.answer


@pytest.mark.parametrize(
    ("revoked", "covered"),
    [
        ({}, False),
        ({"u1": 100.5}, True),
        ({"u1": 100.0}, False),
        ({"u1": 99.9}, False),
        ({"s1": 9e9}, True),
        ({"u2": 9e9, "s2": 9e9}, False),
    ],
)
def test_what_was_issued_before_the_moment_is_covered(revoked: dict[str, float], covered: bool) -> None:
    revocations = Revocations(dict)
    revocations.put(revoked)

    assert revocations.covers(holder()) is covered


def test_a_cached_verdict_falls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    key, revocations = SigningKey(), Revocations(dict)
    verifier = TokenVerifier(key.jwks, revocations=revocations)
    token = key.token(subject="u1")
    assert verifier.verify(token).subject == "u1"
    assert verifier.cached(token)
    revocations.put({"u1": time.time() + 1})

    assert verifier.cached(token) is None
    with pytest.raises(Revoked):
        verifier.verify(token)
    assert issubclass(Revoked, Unauthenticated)


async def test_who_waits_for_the_end_of_a_token_is_woken_by_the_answer_that_tells_it() -> None:
    revocations = Revocations(dict)
    waiting = asyncio.create_task(revocations.wait(holder()))
    other = asyncio.create_task(revocations.wait(holder(subject="u2", session="s2")))
    await asyncio.sleep(0)
    revocations.put({"s1": 9e9})

    await asyncio.wait_for(waiting, 60)
    assert not other.done()
    other.cancel()
    await revocations.wait(holder())


async def test_what_is_known_stays_while_auth_is_away_and_changes_wait_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auth = Auth()
    auth.answer = {"u1": 200.0}
    revocations = Revocations(auth, poll=0.01, grace=600)
    verifier = TokenVerifier(SigningKey().jwks, revocations=revocations)
    polling = asyncio.create_task(revocations.run())
    await _until(lambda: revocations.covers(holder()))
    require_fresh(verifier, holder(subject="u2"))
    auth.away = True
    real = time.monotonic
    monkeypatch.setattr("espalier_common.revocations.time.monotonic", lambda: real() + 601)
    await _until(revocations.is_stale)

    assert revocations.covers(holder())
    with pytest.raises(Unavailable):
        require_fresh(verifier, holder(subject="u2"))
    require_fresh(verifier, holder(subject="chat", kind="service"))
    auth.away = False
    await _until(lambda: not revocations.is_stale())
    require_fresh(verifier, holder(subject="u2"))
    polling.cancel()


def test_the_client_is_the_socket_unless_the_gateway_vouches_for_another() -> None:
    key = SigningKey()
    verifier = TokenVerifier(key.jwks)
    gateway = key.token(kind="service", subject="gateway")
    seen = Client("203.0.113.7", "Firefox")
    for token, address in (
        (gateway, "203.0.113.7"),
        (key.token(kind="service", subject="chat"), "127.0.0.1"),
        (key.token(kind="user", subject="gateway"), "127.0.0.1"),
        ("made up", "127.0.0.1"),
    ):
        assert (
            client_of(told_by_gateway(seen, token=token), peer="ipv4:127.0.0.1:5", verifier=verifier).address == address
        )
    assert client_of([], peer="ipv6:%5B::1%5D:5", verifier=verifier).address == "::1"
    assert client_of([], peer="unix:", verifier=verifier) == Client()


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
