"""Every query about invitations and links for a new password."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from espalier_auth.models import User
from espalier_auth.registration.models import Invitation, PasswordReset
from espalier_common.audit.recording import note_after
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import visible


def find_open_invitation(session: Session, token_hash: bytes, now: datetime) -> Invitation | None:
    """The invitation, if it can still be used."""
    found = select(Invitation).where(Invitation.token_hash == token_hash, *_open(now))
    return session.scalars(found).one_or_none()


def use_invitation(session: Session, token_hash: bytes, now: datetime) -> Invitation | None:
    """Marks the invitation used; of any number of callers one gets it."""
    statement = (
        update(Invitation)
        .where(Invitation.token_hash == token_hash, *_open(now))
        .values(used_at=now)
        .returning(Invitation)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    used = session.scalars(statement).one_or_none()
    if used is not None:  # by a statement that the ORM does not see
        note_after({f"invitations/{used.id}": {"used_at": now}})
    return used


def list_open_invitations(session: Session, now: datetime, page: PageRequest, *, by: Principal) -> Page[Invitation]:
    """Those that can still be used and that the caller, or whom he reaches, made; the newest first."""
    order = (Invitation.created_at.desc(), Invitation.id.desc())
    query = select(Invitation).where(*_open(now), visible(Invitation.creator_id, by))
    return paginate(session, query, order=order, page=page)


def open_invitations_with_role(session: Session, role: str, now: datetime) -> Sequence[str]:
    """E-mail addresses of the invitations that promise this role and can still be used; empty for one without."""
    found = select(Invitation.email).where(Invitation.roles.contains([role]), *_open(now))
    return session.scalars(found.order_by(Invitation.created_at)).all()


def delete_open_invitation(session: Session, invitation_id: str, now: datetime, *, by: Principal) -> bool:
    """Takes an invitation back; False when there is none that the caller reaches and that could be used."""
    # Through the entity, so that the audit log tells what was taken back.
    reached = (Invitation.id == invitation_id, visible(Invitation.creator_id, by), *_open(now))
    open_one = select(Invitation).where(*reached).with_for_update()
    invitation = session.scalars(open_one).one_or_none()
    if invitation is None:
        return False
    session.delete(invitation)
    session.flush()
    return True


def find_users_to_mail(session: Session, login: str) -> Sequence[User]:
    """Who may get a link: has this name or this address, an address at all, and a password here.

    Who says so himself comes last: however many do, the owner gets his.
    """
    wanted = or_(User.username == login, User.email == login)
    users = select(User).where(wanted, User.email != "", User.disabled.is_(False), User.identity_provider == "")
    known_first = (User.username != login, User.verified_email.is_distinct_from(login), User.id)
    return session.scalars(users.order_by(*known_first).limit(5)).all()


def count_resets(session: Session, user_id: str, *, since: datetime) -> int:
    """Links that the user got since."""
    count = select(func.count()).where(PasswordReset.user_id == user_id, PasswordReset.created_at > since)
    return session.scalars(count).one()


def find_open_reset(session: Session, token_hash: bytes, now: datetime) -> PasswordReset | None:
    """The link, if it can still be used."""
    live = (PasswordReset.token_hash == token_hash, PasswordReset.expires_at > now)
    return session.scalars(select(PasswordReset).where(*live)).one_or_none()


def use_reset(session: Session, token_hash: bytes, now: datetime) -> bool:
    """Uses the link up; of any number of callers one does."""
    live = (PasswordReset.token_hash == token_hash, PasswordReset.expires_at > now)
    used = delete(PasswordReset).where(*live).returning(PasswordReset.token_hash)
    return session.scalars(used).one_or_none() is not None


def delete_resets_of(session: Session, user_id: str) -> None:
    """Lets no other link of this user work."""
    session.execute(delete(PasswordReset).where(PasswordReset.user_id == user_id))


def delete_overdue(session: Session, before: datetime) -> None:
    """Forgets invitations and links that expired before this moment."""
    session.execute(delete(Invitation).where(Invitation.expires_at < before))
    session.execute(delete(PasswordReset).where(PasswordReset.expires_at < before))


def _open(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (Invitation.used_at.is_(None), Invitation.expires_at > now)
