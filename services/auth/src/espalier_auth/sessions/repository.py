"""Every query about live sessions and about what was taken back."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Update, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_auth.models import LoginSession, RefreshToken, table_of
from espalier_auth.sessions.models import Revocation

# No token of ours lives longer (15 min is the most that a verifier accepts), with room for clocks that differ.
TOKENS_LIVE = timedelta(minutes=20)


def revoke_tokens_before(session: Session, user_ids: Iterable[str], moment: datetime) -> None:
    """Takes back the tokens of users that were issued before this moment, on every service within seconds."""
    _put(session, user_ids, not_before=moment, now=moment)


def revoke_tokens(session: Session, subjects: Iterable[str], now: datetime) -> None:
    """Takes back all tokens of sessions or API keys that are over, whenever they were issued."""
    _put(session, subjects, not_before=now + TOKENS_LIVE, now=now)


def list_revocations(session: Session, now: datetime) -> Sequence[Revocation]:
    """All that a live token could fall under."""
    return session.scalars(select(Revocation).where(Revocation.created_at > now - TOKENS_LIVE)).all()


def delete_revocations(session: Session, now: datetime) -> None:
    """Forgets what no live token falls under."""
    session.execute(delete(Revocation).where(Revocation.created_at <= now - TOKENS_LIVE))


def list_live_sessions(session: Session, user_id: str, now: datetime) -> Sequence[tuple[LoginSession, datetime]]:
    """A user's sessions that go on, the last used first, each with when it ends unless it is used before."""
    used = func.coalesce(LoginSession.last_used_at, LoginSession.created_at)
    waits = and_(RefreshToken.session_id == LoginSession.id, RefreshToken.used_at.is_(None))
    live = (
        select(LoginSession, RefreshToken.expires_at)
        .join(RefreshToken, waits)
        .where(
            LoginSession.user_id == user_id,
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > now,
            RefreshToken.expires_at > now,
        )
    )
    return session.execute(live.order_by(used.desc(), LoginSession.id)).tuples().all()


def find_live_session(session: Session, session_id: str, now: datetime) -> LoginSession | None:
    """The session of this id, if it is not over."""
    login = session.get(LoginSession, session_id) if session_id else None
    return login if login and login.revoked_at is None and login.expires_at > now else None


def end_live_sessions(
    session: Session, user_id: str, *, now: datetime, only: str | None = None, but: str | None = None
) -> list[str]:
    """Ends sessions of a user at his own wish: one, or all but one; gives their ids."""
    statement = (
        update(LoginSession)
        .where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None), LoginSession.expires_at > now)
        .values(revoked_at=now, revoked_reason="ENDED_BY_USER")
        .returning(LoginSession.id)
        .execution_options(synchronize_session=False)
    )
    if only is not None:
        statement = statement.where(LoginSession.id == only)
    if but:
        statement = statement.where(LoginSession.id != but)
    return list(session.scalars(statement))


def touch_session(session: Session, session_id: str, *, address: str, agent: str, now: datetime) -> bool:
    """Notes the use of a session; False when it has ended meanwhile."""
    given = {"session": session_id, "now": now, "used_at": address, "used_by": agent}
    return session.execute(_touching(), given).one_or_none() is not None


@cache
def _touching() -> Update:
    login = table_of(LoginSession)
    living = (login.c.id == bindparam("session"), login.c.revoked_at.is_(None))
    used: dict[str, Any] = {
        "last_used_at": bindparam("now"),
        "address": bindparam("used_at"),
        "agent": bindparam("used_by"),
    }
    return update(login).where(*living).values(used).returning(login.c.id)


def _put(session: Session, subjects: Iterable[str], *, not_before: datetime, now: datetime) -> None:
    # In one order, or two that take back the same would wait for each other.
    rows = [{"subject": subject, "not_before": not_before, "created_at": now} for subject in sorted(set(subjects))]
    if not rows:
        return
    added = insert(Revocation).values(rows)
    session.execute(
        added.on_conflict_do_update(
            index_elements=[Revocation.subject],
            set_={
                "not_before": func.greatest(Revocation.not_before, added.excluded.not_before),
                "created_at": func.greatest(Revocation.created_at, added.excluded.created_at),
            },
        )
    )
