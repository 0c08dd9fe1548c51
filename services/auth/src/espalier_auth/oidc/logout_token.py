"""Checks a logout token as OpenID Connect Back-Channel Logout 1.0, 2.6, and ASVS 10.5.5 say.

An id_token, or any other token that the provider signed for us, is none: the type, the event and the missing nonce
tell them apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from espalier_auth.oidc.signed_token import TokenError, Trust, is_name, read_header, verify

EVENT = "http://schemas.openid.net/event/backchannel-logout"
_TYPES = frozenset({"logout+jwt", "application/logout+jwt"})
_WHAT = "logout_token"


@dataclass(frozen=True, kw_only=True)
class Logout:
    """Which sessions end: that of a session at the provider, those of a subject, or one of both. Empty: not said."""

    token_id: str
    subject: str
    sid: str
    issued_at: datetime


def require_type(token: str) -> None:
    """What needs no key, before the provider is asked for one. Raises TokenError."""
    kind = read_header(token, what=_WHAT).get("typ")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenError("it is no logout token (typ)")


def verify_logout_token(token: str, keys: Sequence[Mapping[str, Any]], trust: Trust) -> Logout:
    """What the token says. Raises TokenError, UnknownKey."""
    require_type(token)
    claims = verify(token, keys, trust, what=_WHAT, names=["jti", "events"])
    events = claims["events"]
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise TokenError("its logout_token tells of no logout (events)")
    if "nonce" in claims:
        raise TokenError("its logout_token has a nonce, which none has")
    if not is_name(claims["jti"]):
        raise TokenError("its logout_token has no name of its own (jti)")
    named = {name: claims[name] for name in ("sub", "sid") if name in claims}
    if not named or not all(map(is_name, named.values())):
        raise TokenError("its logout_token names neither a user nor a session (sub, sid)")
    issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    return Logout(token_id=claims["jti"], subject=named.get("sub", ""), sid=named.get("sid", ""), issued_at=issued_at)
