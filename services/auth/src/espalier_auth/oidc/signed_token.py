"""A JWT that a provider signed for us: its key, algorithm, issuer, audience and times, as RFC 8725 says."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

CLOCK_SKEW = 60  # seconds
# A token is made for the moment; an old one was made for something else.
MAX_AGE = 600  # seconds
MIN_RSA_BITS = 2048
MAX_NAME = 255  # characters of a subject, a session or a token's own name

Claims = Mapping[str, Any]


class TokenError(Exception):
    """Why the token proves nothing, as the end of a sentence."""


class UnknownKey(TokenError):
    """The provider signed with a key that it had not published when we asked last."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Who signs for whom, and how."""

    issuer: str
    client_id: str
    algorithms: frozenset[str]


def read_header(token: str, *, what: str) -> dict[str, Any]:
    """What the token says of itself, unproven. `what` names it in errors. Raises TokenError."""
    try:
        return jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise TokenError(f"its {what} is no JWT") from error


def verify(token: str, keys: Sequence[Mapping[str, Any]], trust: Trust, *, what: str, names: Sequence[str]) -> Claims:
    """The claims of a token, which has those in `names` too. Raises TokenError, UnknownKey."""
    header = read_header(token, what=what)
    algorithm = header.get("alg")
    if algorithm not in trust.algorithms:
        raise TokenError(f"it is signed with {algorithm!r}, which is not allowed")
    if "crit" in header:
        raise TokenError("its header asks for an extension that is unknown here")
    key = _key(_choose(keys, header, what), algorithm)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=trust.client_id,
            issuer=trust.issuer,
            leeway=CLOCK_SKEW,
            options={"require": ["exp", "iat", "iss", "aud", *names]},
        )
    except jwt.PyJWTError as error:
        raise TokenError(f"its {what} is not valid: {error}") from error
    issued = claims["iat"]
    if isinstance(issued, bool) or not isinstance(issued, int | float) or issued < time.time() - MAX_AGE - CLOCK_SKEW:
        raise TokenError(f"its {what} is too old")
    return claims


def is_name(text: object) -> bool:
    """Whether a claim may be the name of a subject, a session or a token."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isprintable()


def _choose(keys: Sequence[Mapping[str, Any]], header: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The published key that the token names; a token may leave it out where there is only one."""
    signing = [key for key in keys if key.get("use", "sig") == "sig" and key.get("kty") in {"RSA", "EC", "OKP"}]
    kid = header.get("kid")
    fitting = [key for key in signing if kid is None or key.get("kid") == kid]
    if len(fitting) != 1:
        raise UnknownKey(f"its {what} is signed with a key that it does not publish")
    return fitting[0]


def _key(jwk: Mapping[str, Any], algorithm: str) -> Any:
    if jwk.get("alg", algorithm) != algorithm:
        raise TokenError(f"its key is for {jwk.get('alg')!r}, not for {algorithm!r}")
    try:
        key = jwt.PyJWK(dict(jwk), algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise TokenError(f"its key does not fit {algorithm}") from error
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise TokenError(f"its key has {key.key_size} bits, fewer than {MIN_RSA_BITS}")
    return key
