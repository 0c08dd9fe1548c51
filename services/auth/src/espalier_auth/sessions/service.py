"""What people do with their signed-in devices. Each call is part of the caller's transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from espalier_auth.models import LoginSession
from espalier_auth.repository import tell_ended
from espalier_auth.service import require_recent_sign_in
from espalier_auth.sessions import repository
from espalier_auth.sessions.errors import SessionNotFound
from espalier_common.db import Database, utc_now
from espalier_common.identity import Principal


class Devices:
    """The sessions of the signed-in user."""

    def list(self, session: Session, owner: Principal) -> Sequence[tuple[LoginSession, datetime]]:
        """His live sessions, the last used first, each with when it ends unless it is used before."""
        return repository.list_live_sessions(session, owner.subject, utc_now())

    def end(self, session: Session, session_id: str, *, owner: Principal) -> None:
        """Ends one of them, with its access tokens. Raises SessionNotFound for one that is over, or another's.

        SignInAgain for another than one's own after a while: whoever finds a session left open shuts nobody out.
        """
        now = utc_now()
        ended = repository.end_live_sessions(session, owner.subject, now=now, only=session_id)
        if not ended:
            raise SessionNotFound(session_id)
        if session_id != owner.session:
            require_recent_sign_in(session, owner, "to end another of your sessions")
        repository.revoke_tokens(session, ended, now)
        tell_ended(ended, reason="ENDED_BY_USER")

    def end_others(self, session: Session, owner: Principal) -> int:
        """Ends all but the one that asks; gives their number. Raises SignInAgain as `end` does."""
        now = utc_now()
        ended = repository.end_live_sessions(session, owner.subject, now=now, but=owner.session)
        if ended:
            require_recent_sign_in(session, owner, "to end your other sessions")
        repository.revoke_tokens(session, ended, now)
        tell_ended(ended, reason="ENDED_BY_USER")
        return len(ended)


def read_revocations(database: Database) -> Mapping[str, float]:
    """As `Revocations` wants them: for auth itself, which needs nobody to ask."""
    with database.reading() as session:
        found = repository.list_revocations(session, utc_now())
    return {item.subject: item.not_before.timestamp() for item in found}
