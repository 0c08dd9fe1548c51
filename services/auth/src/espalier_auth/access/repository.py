"""Every query about roles, groups and API keys."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from espalier_auth.access.models import ApiKey, CustomRole, Group
from espalier_auth.models import FIRST_ADMIN, INITIAL_PASSWORD_LIVES, GroupMember, User
from espalier_common.db import utc_now
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate

# "rights": any number but those of the migrations and of the start, the same in all processes of auth.
_RIGHTS_LOCK = 0x726967687473


def lock_rights(session: Session) -> None:
    """Waits until nobody else changes who may do what, and reads it meanwhile; held until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(_RIGHTS_LOCK)))


def wait_for_rights(session: Session) -> None:
    """Waits until no change of who may do what is under way; none begins until the transaction ends."""
    session.execute(_waiting())


@cache
def _waiting() -> Select[Any]:
    return select(func.pg_advisory_xact_lock_shared(_RIGHTS_LOCK))


def list_custom_roles(session: Session) -> Sequence[CustomRole]:
    """All roles that are not built in, by name."""
    return session.scalars(select(CustomRole).order_by(CustomRole.name)).all()


def find_custom_role(session: Session, name: str) -> CustomRole | None:
    """The role of this name, as it is now."""
    return session.get(CustomRole, name, populate_existing=True)


def has_role(name: str) -> ColumnElement[bool]:
    """The condition that a user has the role, himself or by a group."""
    by_group = (
        select(GroupMember.user_id).join(Group, Group.id == GroupMember.group_id).where(Group.roles.contains([name]))
    )
    return or_(User.roles.contains([name]), User.id.in_(by_group))


def users_with_role(session: Session, name: str) -> Sequence[str]:
    """Ids of the users who have the role, themselves or by a group."""
    return session.scalars(select(User.id).where(has_role(name))).all()


def has_active_user_with_role(session: Session, name: str) -> bool:
    """Whether anybody who can sign in has the role, himself or by a group."""
    # As `KnownPassword.has_lapsed` says; who comes from a provider was given no password.
    gets_in = or_(
        User.password_change_required.is_(False),
        User.username == FIRST_ADMIN,
        User.created_at >= utc_now() - INITIAL_PASSWORD_LIVES,
    )
    active = select(User.id).where(has_role(name), User.disabled.is_(False), gets_in)
    return session.scalars(active.limit(1)).first() is not None


def groups_with_role(session: Session, name: str) -> Sequence[Group]:
    """The groups that have the role, by name."""
    return session.scalars(select(Group).where(Group.roles.contains([name])).order_by(Group.name)).all()


def groups_of(session: Session, user_id: str) -> Sequence[Group]:
    """The groups of a user, by name."""
    member = select(GroupMember.group_id).where(GroupMember.user_id == user_id)
    return session.scalars(select(Group).where(Group.id.in_(member)).order_by(Group.name)).all()


def peers_of(session: Session, *user_ids: str) -> Sequence[str]:
    """Ids of all users in the groups of these users, their own among them where they are in one."""
    groups = select(GroupMember.group_id).where(GroupMember.user_id.in_(user_ids))
    return session.scalars(select(GroupMember.user_id).where(GroupMember.group_id.in_(groups)).distinct()).all()


def find_group(session: Session, group_id: str) -> Group | None:
    """The group of this id, as it is now."""
    return session.get(Group, group_id, populate_existing=True)


def find_reached_group(session: Session, group_id: str, *, by: Principal) -> Group | None:
    """The group, if the caller reaches it: any, or one that he is in."""
    if by.scope != "all":
        member = exists().where(GroupMember.group_id == group_id, GroupMember.user_id == by.subject)
        if not session.scalar(select(member)):
            return None
    return find_group(session, group_id)


def list_groups(session: Session, page: PageRequest, *, of: str) -> Page[Group]:
    """Groups by name: those of this user, or all when it is empty."""
    query = select(Group)
    if of:
        query = query.where(Group.id.in_(select(GroupMember.group_id).where(GroupMember.user_id == of)))
    return paginate(session, query, order=(Group.name.asc(),), page=page)


def members_of(session: Session, group_ids: Iterable[str]) -> dict[str, list[str]]:
    """Ids of the members of each of these groups, sorted."""
    wanted = list(group_ids)
    members: dict[str, list[str]] = {group_id: [] for group_id in wanted}
    rows = select(GroupMember.group_id, GroupMember.user_id).where(GroupMember.group_id.in_(wanted))
    for group_id, user_id in session.execute(rows.order_by(GroupMember.user_id)):
        members[group_id].append(user_id)
    return members


def known_users(session: Session, user_ids: Iterable[str]) -> set[str]:
    """Those of the ids that are a user's."""
    return set(session.scalars(select(User.id).where(User.id.in_(list(user_ids)))))


def roles_held_by(session: Session, user_ids: Iterable[str]) -> set[str]:
    """Names of the roles that these users have, themselves or by a group."""
    wanted = list(user_ids)
    own = select(func.jsonb_array_elements_text(User.roles)).where(User.id.in_(wanted))
    groups = select(GroupMember.group_id).where(GroupMember.user_id.in_(wanted))
    given = select(func.jsonb_array_elements_text(Group.roles)).where(Group.id.in_(groups))
    return set(session.scalars(own.union(given)))


def remove_members(session: Session, group_id: str, user_ids: Iterable[str]) -> None:
    """Takes users out of a group; one by one, so that the audit log sees who they were."""
    leaving = select(GroupMember).where(GroupMember.group_id == group_id, GroupMember.user_id.in_(list(user_ids)))
    for member in session.scalars(leaving):
        session.delete(member)


def find_key(session: Session, key_id: str) -> ApiKey | None:
    """The API key of this id."""
    return session.get(ApiKey, key_id)


def list_keys(session: Session, user_id: str, page: PageRequest) -> Page[ApiKey]:
    """The API keys of a user, newest first."""
    query = select(ApiKey).where(ApiKey.user_id == user_id)
    return paginate(session, query, order=(ApiKey.created_at.desc(), ApiKey.id.desc()), page=page)


def count_keys(session: Session, user_id: str) -> int:
    """How many API keys a user has."""
    return session.scalars(select(func.count()).select_from(ApiKey).where(ApiKey.user_id == user_id)).one()


def delete_expired_keys(session: Session, before: datetime) -> None:
    """Forgets keys that expired before this moment; they open nothing since."""
    session.execute(delete(ApiKey).where(ApiKey.expires_at < before))


def note_use(session: Session, key_id: str, now: datetime) -> None:
    """Remembers the minute of the last use; writes once a minute, however often the key is used."""
    minute = now.replace(second=0, microsecond=0)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < minute))
        .values(last_used_at=minute)
        .execution_options(synchronize_session=False)
    )
