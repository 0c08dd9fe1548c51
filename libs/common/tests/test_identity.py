"""Access tokens: what is accepted, what is refused, what is remembered."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from espalier_common import identity
from espalier_common.errors import Unauthenticated, Unavailable
from espalier_common.identity import Principal, TokenVerifier
from espalier_common.testing.rpc import SigningKey


@pytest.fixture
def key() -> SigningKey:
    return SigningKey()


@pytest.fixture
def verifier(key: SigningKey) -> TokenVerifier:
    return TokenVerifier(key.jwks)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": "espalier",
        "aud": "espalier",
        "sub": "u1",
        "name": "Ann",
        "kind": "user",
        "roles": ["trainer"],
        "permissions": ["training.*"],
        "scope": "group",
        "jti": "1",
        "iat": now,
        "exp": now + 600,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_a_good_token_gives_its_principal(key: SigningKey, verifier: TokenVerifier) -> None:
    token = key.sign(claims())
    principal = verifier.verify(token)
    assert (principal.subject, principal.name, principal.kind, principal.scope) == ("u1", "Ann", "user", "group")
    assert principal.may("training.runs.create")
    assert not principal.may("auth.users.create")
    assert principal.token == token
    assert token not in repr(principal)


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"aud": "other"},
        {"sub": None},
        {"jti": None},
        {"exp": None},
        {"kind": "god"},
        {"scope": "galaxy"},
        {"permissions": "training.*"},
        {"permissions": [1]},
        {"name": None},
        {"exp": now() + 100_000},
        {"exp": 10**400},
        {"iat": now() + 0.5, "exp": 10**400},
        {"iat": now() - 3600, "exp": now() - 1800},
        {"iat": now() + 3600, "exp": now() + 3700},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(
    key: SigningKey, verifier: TokenVerifier, changes: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(key.sign(claims(**changes)))


def test_a_token_of_another_type_is_refused(key: SigningKey, verifier: TokenVerifier) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(key.sign(claims(), typ="JWT"))


@pytest.mark.parametrize("token", ["", "a.b.c", "é", "x" * 10_000])
def test_nonsense_is_refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_a_megabyte_is_refused_before_anything_of_it_is_read(key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a token that is too long was read")

    large = key.sign(claims(name="n" * (1 << 20)))
    verifier = TokenVerifier(never, exchange=never)
    for name in ("_read_once", "_COMPACT"):
        monkeypatch.setattr(identity, name, never)
    monkeypatch.setattr(identity.jwt, "decode", never)
    for token in (large, "a" * (1 << 20), f"{'a' * (1 << 20)}.b.c", "esp_" + "a" * (1 << 20)):
        with pytest.raises(Unauthenticated):
            verifier.verify(token)


def test_another_algorithm_is_refused_even_with_the_public_key_as_its_secret(
    key: SigningKey, verifier: TokenVerifier
) -> None:
    secret = key.jwks()[0]["x"].ljust(32)
    token = jwt.encode(claims(), secret, algorithm="HS256", headers={"kid": key.kid, "typ": "at+jwt"})
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


@pytest.mark.parametrize(
    "changed",
    [
        {"jwk": {"kty": "OKP"}},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/chain"},
        {"crit": ["b64"], "b64": False},
        {"kid": ["test"]},
    ],
)
def test_a_header_with_more_than_ours_is_refused_even_when_well_signed(
    key: SigningKey, verifier: TokenVerifier, changed: dict[str, Any]
) -> None:
    header = json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid, **changed}).encode()
    with pytest.raises(Unauthenticated):
        verifier.verify(key.sign_bytes(header, json.dumps(claims()).encode()))


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(claims()).encode()[:-1] + b', "sub": "u2"}',
        json.dumps(claims(aud=["espalier", "other"])).encode(),
        b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"[]",
        b"\xff",
    ],
    ids=["twice", "audiences", "deep", "list", "no text"],
)
def test_a_payload_that_readers_may_take_differently_is_refused(
    key: SigningKey, verifier: TokenVerifier, payload: bytes
) -> None:
    header = json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid}).encode()
    with pytest.raises(Unauthenticated):
        verifier.verify(key.sign_bytes(header, payload))


@pytest.mark.parametrize("spelling", ["{}=", "{}==", "{}\n", " {}", "{}.x"])
def test_a_token_has_one_spelling(key: SigningKey, verifier: TokenVerifier, spelling: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(spelling.format(key.sign(claims())))


class Source:
    """Keys of a test, counting how often they are asked for."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.calls = 0
        self.broken = False

    def __call__(self) -> list[dict[str, str]]:
        self.calls += 1
        if self.broken:
            raise OSError("away")
        return [jwk for key in self.keys for jwk in key.jwks()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    offset = [0.0]
    real = time.monotonic
    monkeypatch.setattr("espalier_common.identity.time.monotonic", lambda: real() + offset[0])

    def advance(seconds: float) -> None:
        offset[0] += seconds

    return advance


def test_unknown_keys_cause_one_fetch_per_half_minute(key: SigningKey, clock: Callable[[float], None]) -> None:
    source = Source(key)
    verifier = TokenVerifier(source)
    verifier.verify(key.sign(claims()))
    rotated = SigningKey("next")
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            verifier.verify(rotated.sign(claims()))
    assert source.calls == 1
    source.keys.append(rotated)
    clock(31)
    assert verifier.verify(rotated.sign(claims())).subject == "u1"
    assert source.calls == 2


def test_known_keys_stay_good_while_auth_is_away(key: SigningKey, clock: Callable[[float], None]) -> None:
    source = Source(key)
    verifier = TokenVerifier(source)
    verifier.verify(key.sign(claims()))
    source.broken = True
    clock(1000)
    assert verifier.verify(key.sign(claims(jti="2"))).subject == "u1"


def test_before_the_first_fetch_the_answer_is_try_again(key: SigningKey, clock: Callable[[float], None]) -> None:
    source = Source(key)
    source.broken = True
    verifier = TokenVerifier(source)
    with pytest.raises(Unavailable):
        verifier.verify(key.sign(claims()))
    source.broken = False
    clock(1)
    assert verifier.verify(key.sign(claims()))


async def test_keys_that_are_asked_for_at_the_start_serve_the_first_caller_while_auth_is_away(
    key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "KEYS_PAUSE", 0.0)
    source = Source(key)
    source.broken = True
    verifier = TokenVerifier(source)
    asked = asyncio.create_task(verifier.fetch_keys())
    while not source.calls:
        await asyncio.sleep(0)
    assert not asked.done()
    source.broken = False
    await asked
    source.broken = True
    assert verifier.verify(key.sign(claims())).subject == "u1"


def test_a_verdict_is_remembered_until_the_token_expires(
    key: SigningKey, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = key.sign(claims())
    assert verifier.cached(token) is None
    principal = verifier.verify(token)
    assert verifier.cached(token) is principal
    later = time.time() + 601
    monkeypatch.setattr("espalier_common.identity.time.time", lambda: later)
    assert verifier.cached(token) is None


def test_verdicts_are_bounded(key: SigningKey, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "CACHE_SIZE", 2)
    tokens = [key.sign(claims(jti=str(number))) for number in range(3)]
    for token in tokens:
        verifier.verify(token)
    assert [verifier.cached(token) is not None for token in tokens] == [False, True, True]


@pytest.mark.parametrize(
    ("granted", "wanted", "allowed"),
    [
        ("*", "a.b.c", True),
        ("a.*", "a.b.c", True),
        ("a.b.*", "a.b.c", True),
        ("a.b.c", "a.b.c", True),
        ("a.b", "a.b.c", False),
        ("a.b.c.*", "a.b.c", False),
        ("a*", "ab.c", False),
        ("b.*", "a.b.c", False),
    ],
)
def test_wildcards_cover_whole_words(granted: str, wanted: str, allowed: bool) -> None:
    principal = Principal("u", "u", "user", (), frozenset({granted}), "own")
    assert principal.may(wanted) is allowed
