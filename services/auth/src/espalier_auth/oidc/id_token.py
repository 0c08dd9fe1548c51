"""Checks an id_token as OpenID Connect Core 3.1.3.7 says, and says what is wrong with it."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier_auth.oidc.signed_token import Claims, TokenError, Trust, is_name, verify


@dataclass(frozen=True, kw_only=True)
class Expectation(Trust):
    """What the token must say."""

    nonce: str


def verify_id_token(token: str, keys: Sequence[Mapping[str, Any]], expected: Expectation) -> Claims:
    """The claims of a token that proves who signed in. Raises TokenError, UnknownKey."""
    claims = verify(token, keys, expected, what="id_token", names=["sub"])
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        raise TokenError("its id_token has several audiences and does not say for whom it is (azp)")
    if "azp" in claims and claims["azp"] != expected.client_id:
        raise TokenError("its id_token was made for another client (azp)")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise TokenError("its id_token belongs to another sign-in (nonce)")
    if not is_name(claims["sub"]):
        raise TokenError("its id_token names nobody (sub)")
    return claims
