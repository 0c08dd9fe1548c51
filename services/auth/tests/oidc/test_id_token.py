"""An id_token proves nothing unless all of it is as it must be (OpenID Connect Core 3.1.3.7, RFC 8725)."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from espalier_auth.oidc.id_token import Expectation, verify_id_token
from espalier_auth.oidc.signed_token import TokenError, UnknownKey

KEY = rsa.generate_private_key(65537, 2048)
CURVE_KEY = ec.generate_private_key(ec.SECP256R1())
EXPECTED = Expectation(
    issuer="https://login.example.org", client_id="espalier", nonce="n-1", algorithms=frozenset({"RS256", "ES256"})
)


def published(key: Any = KEY, kid: str = "one", **extra: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **extra}


KEYS = [published(), published(CURVE_KEY, "curve")]


def a_token(*, key: Any = KEY, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": "https://login.example.org", "aud": "espalier", "sub": "ada", "nonce": "n-1"}
    whole = {**said, "iat": now, "exp": now + 300, **claims}
    whole = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": "one", **(headers or {})})


def from_now(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims with times that are given in seconds from now: a token is made when its test runs, not before."""
    times = {name: int(time.time()) + claims[name] for name in ("exp", "iat", "nbf") if claims.get(name) is not None}
    return {**claims, **times}


@pytest.mark.parametrize(
    ("claims", "signed"),
    [
        ({}, {}),
        ({}, {"key": CURVE_KEY, "algorithm": "ES256", "headers": {"kid": "curve"}}),
        ({"aud": ["espalier"]}, {}),
        ({"aud": ["espalier", "another"], "azp": "espalier"}, {}),
        ({"exp": -30}, {}),
    ],
)
def test_a_right_token_is_believed(claims: dict[str, Any], signed: dict[str, Any]) -> None:
    assert verify_id_token(a_token(**signed, **from_now(claims)), KEYS, EXPECTED)["sub"] == "ada"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://login.example.org/"}, "issuer"),
        ({"iss": "https://evil.example.org"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"aud": "another"}, "[Aa]udience"),
        ({"aud": None}, "aud"),
        ({"aud": ["espalier", "another"]}, "azp"),
        ({"azp": "another"}, "azp"),
        ({"exp": -120}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"iat": 600}, "not yet valid"),
        ({"iat": -3600}, "too old"),
        ({"nbf": 600}, "not yet valid"),
        ({"nonce": "n-2"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": 1}, "nonce"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": "x" * 256}, "sub"),
    ],
)
def test_a_wrong_claim_is_refused(claims: dict[str, Any], said: str) -> None:
    with pytest.raises(TokenError, match=said):
        verify_id_token(a_token(**from_now(claims)), KEYS, EXPECTED)


def test_an_unsigned_token_is_refused() -> None:
    with pytest.raises(TokenError, match="'none'"):
        verify_id_token(a_token(key=None, algorithm="none"), KEYS, EXPECTED)


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    secret = RSAAlgorithm.to_jwk(KEY.public_key()).encode() * 2
    with pytest.raises(TokenError, match="'HS256'"):
        verify_id_token(a_token(key=secret, algorithm="HS256"), KEYS, EXPECTED)


def test_an_algorithm_that_the_provider_does_not_announce_is_refused() -> None:
    with pytest.raises(TokenError, match="'PS256'"):
        verify_id_token(a_token(algorithm="PS256"), KEYS, EXPECTED)


def test_a_key_of_another_kind_than_the_algorithm_is_refused() -> None:
    with pytest.raises(TokenError, match="does not fit"):
        verify_id_token(a_token(headers={"kid": "curve"}), KEYS, EXPECTED)


def test_a_key_that_is_published_for_another_algorithm_is_refused() -> None:
    with pytest.raises(TokenError, match="'RS512'"):
        verify_id_token(a_token(), [published(alg="RS512")], EXPECTED)


@pytest.mark.parametrize("kid", ["two", "../../dev/null", "' OR 1=1 --"])
def test_a_key_that_is_not_published_is_unknown(kid: str) -> None:
    with pytest.raises(UnknownKey):
        verify_id_token(a_token(headers={"kid": kid}), KEYS, EXPECTED)


def test_a_secret_or_an_encryption_key_among_the_published_ones_verifies_nothing() -> None:
    with pytest.raises(UnknownKey):
        verify_id_token(a_token(), [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}], EXPECTED)
    with pytest.raises(UnknownKey):
        verify_id_token(a_token(), [published(use="enc")], EXPECTED)


def test_another_key_under_the_same_name_is_refused() -> None:
    with pytest.raises(TokenError, match=r"[Ss]ignature"):
        verify_id_token(a_token(key=rsa.generate_private_key(65537, 2048)), KEYS, EXPECTED)


@pytest.mark.filterwarnings("ignore:The RSA key is")
def test_a_short_key_is_refused() -> None:
    short = rsa.generate_private_key(65537, 1024)
    with pytest.raises(TokenError, match="1024 bits"):
        verify_id_token(a_token(key=short), [published(short)], EXPECTED)


def test_an_unknown_critical_header_is_refused() -> None:
    with pytest.raises(TokenError, match=r"extension|not valid|no JWT"):
        verify_id_token(a_token(headers={"crit": ["exp"]}), KEYS, EXPECTED)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.e30"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(TokenError):
        verify_id_token(token, KEYS, EXPECTED)
