"""Checks an id_token as OpenID Connect Core 3.1.3.7 and RFC 8725 say, and says what is wrong with it."""

import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

CLOCK_SKEW = 60  # seconds
# A token is made when the code is exchanged; an old one was made for something else.
MAX_AGE = 600  # seconds
MIN_RSA_BITS = 2048

Claims = Mapping[str, Any]


class IdTokenError(Exception):
    """Why the token proves nothing, as the end of a sentence."""


class UnknownKey(IdTokenError):
    """The provider signed with a key that it had not published when we asked last."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What the token must say."""

    issuer: str
    client_id: str
    nonce: str
    algorithms: frozenset[str]


def verify_id_token(token: str, keys: Sequence[Mapping[str, Any]], expected: Expectation) -> Claims:
    """The claims of a token that proves who signed in. Raises IdTokenError, UnknownKey."""
    header = _header(token)
    algorithm = header.get("alg")
    if algorithm not in expected.algorithms:
        raise IdTokenError(f"it is signed with {algorithm!r}, which is not allowed")
    if "crit" in header:
        raise IdTokenError("its header asks for an extension that is unknown here")
    key = _key(_choose(keys, header), algorithm)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=expected.client_id,
            issuer=expected.issuer,
            leeway=CLOCK_SKEW,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.PyJWTError as error:
        raise IdTokenError(f"its id_token is not valid: {error}") from error
    _check(claims, expected)
    return claims


def _header(token: str) -> dict[str, Any]:
    try:
        return jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise IdTokenError("its id_token is no JWT") from error


def _choose(keys: Sequence[Mapping[str, Any]], header: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published key that the token names; a token may leave it out where there is only one."""
    signing = [key for key in keys if key.get("use", "sig") == "sig" and key.get("kty") in {"RSA", "EC", "OKP"}]
    kid = header.get("kid")
    fitting = [key for key in signing if kid is None or key.get("kid") == kid]
    if len(fitting) != 1:
        raise UnknownKey("its id_token is signed with a key that it does not publish")
    return fitting[0]


def _key(jwk: Mapping[str, Any], algorithm: str) -> Any:
    if jwk.get("alg", algorithm) != algorithm:
        raise IdTokenError(f"its key is for {jwk.get('alg')!r}, not for {algorithm!r}")
    try:
        key = jwt.PyJWK(dict(jwk), algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise IdTokenError(f"its key does not fit {algorithm}") from error
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise IdTokenError(f"its key has {key.key_size} bits, fewer than {MIN_RSA_BITS}")
    return key


def _check(claims: Claims, expected: Expectation) -> None:
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        raise IdTokenError("its id_token has several audiences and does not say for whom it is (azp)")
    if "azp" in claims and claims["azp"] != expected.client_id:
        raise IdTokenError("its id_token was made for another client (azp)")
    issued = claims["iat"]
    if isinstance(issued, bool) or not isinstance(issued, int | float) or issued < time.time() - MAX_AGE - CLOCK_SKEW:
        raise IdTokenError("its id_token is too old")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise IdTokenError("its id_token belongs to another sign-in (nonce)")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise IdTokenError("its id_token names nobody (sub)")
