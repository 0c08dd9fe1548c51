"""Every query about tries of passwords."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from espalier_auth.throttle.models import PasswordTry


def lock_buckets(session: Session, buckets: Sequence[str]) -> None:
    """Nobody else counts in these buckets until the transaction ends, on any replica."""
    for bucket in sorted(buckets):  # one order for all, or two would wait for each other
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(bucket, 0))))


def list_tries(session: Session, buckets: Sequence[str], *, since: datetime) -> Sequence[PasswordTry]:
    """The tries that may still count."""
    tries = select(PasswordTry).where(PasswordTry.bucket.in_(buckets), PasswordTry.started_at > since)
    return session.scalars(tries).all()


def mark_failed(session: Session, ids: Sequence[str], now: datetime) -> None:
    """The password was wrong."""
    failed = update(PasswordTry).where(PasswordTry.id.in_(ids)).values(failed_at=now)
    session.execute(failed.execution_options(synchronize_session=False))


def delete_tries(session: Session, ids: Sequence[str]) -> None:
    """Forgets these."""
    forget = delete(PasswordTry).where(PasswordTry.id.in_(ids))
    session.execute(forget.execution_options(synchronize_session=False))


def delete_failures(session: Session, bucket: str) -> None:
    """Begins anew; those that are not ended yet stay."""
    forget = delete(PasswordTry).where(PasswordTry.bucket == bucket, PasswordTry.failed_at.is_not(None))
    session.execute(forget.execution_options(synchronize_session=False))


def delete_old_tries(session: Session, before: datetime) -> None:
    """Forgets what does not count any more."""
    session.execute(delete(PasswordTry).where(PasswordTry.started_at < before))
