"""Sessions end with those at the provider by which they began. Each call is part of the caller's transaction."""

import hashlib
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from espalier_auth.oidc import repository
from espalier_auth.oidc.errors import LoginExpired, LogoutRefused
from espalier_auth.oidc.logout_token import Logout
from espalier_auth.oidc.models import ProviderLogout, ProviderSession
from espalier_auth.oidc.providers import ProviderSettings
from espalier_auth.oidc.signed_token import CLOCK_SKEW, MAX_AGE, Claims, is_name
from espalier_auth.repository import revoke_session
from espalier_auth.sessions.repository import revoke_tokens
from espalier_common.audit.recording import note_after
from espalier_common.db import utc_now

REASON = "ENDED_BY_PROVIDER"
# No id_token that is older is taken.
_REMEMBERED = timedelta(seconds=MAX_AGE + 2 * CLOCK_SKEW)


def note_session(session: Session, session_id: str, provider: ProviderSettings, claims: Claims) -> None:
    """Notes by which session at the provider this one begins. Raises LoginExpired where that one ended meanwhile."""
    repository.lock_sessions_of(session, provider.issuer)
    sid = claims["sid"] if is_name(claims.get("sid")) else ""
    begun = ProviderSession(session_id=session_id, issuer=provider.issuer, subject=claims["sub"], sid=sid)
    if repository.has_ended(session, begun, since=datetime.fromtimestamp(claims["iat"], UTC)):
        raise LoginExpired
    session.add(begun)


def end_sessions(session: Session, provider: ProviderSettings, logout: Logout) -> None:
    """Ends the sessions that a logout token is about, with their access tokens.

    That of its session at the provider, or all of its subject where it names none; and those of the subject that began
    while the provider named none. Raises LogoutRefused for a token that came before.
    """
    repository.lock_sessions_of(session, provider.issuer)
    now = utc_now()
    followed = ProviderLogout(
        token_hash=hashlib.sha256(f"{provider.issuer} {logout.token_id}".encode()).digest(),
        issuer=provider.issuer,
        subject=logout.subject,
        sid=logout.sid,
        issued_at=logout.issued_at,
        expires_at=logout.issued_at + _REMEMBERED,
    )
    if not repository.follow_logout(session, followed, now=now):
        raise LogoutRefused(provider.title, "it came before (jti)")
    found = repository.list_living_sessions(session, followed)
    ended = {id: user for id, user in found if revoke_session(session, id, reason=REASON, now=now)}
    revoke_tokens(session, list(ended), now)
    # Whose they were, and who told of it: nobody acts here whom the log could name.
    note_after({f"login_sessions/{id}": {"user_id": user, "revoked_reason": REASON} for id, user in ended.items()})
    note_after({f"identity_providers/{provider.name}": {"sessions_ended": len(ended)}})
