"""What people do with their API keys, and what a key is worth. Each call is part of the caller's transaction.

A key reads `esp_<id>_<secret>`: the id finds its row, the secret has 256 random bits, and only the hash of the whole is
stored. What it may do is worked out at each use from what its owner may do then.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from espalier_auth import repository as users
from espalier_auth.access import repository
from espalier_auth.access.errors import ApiKeyNotFound, InvalidKey, TooManyKeys
from espalier_auth.access.models import ApiKey
from espalier_auth.access.rights import AccessRights
from espalier_auth.display_names import find_name_violations
from espalier_auth.faults import refuse_invalid
from espalier_auth.models import User
from espalier_auth.roles import Rights
from espalier_auth.sessions.repository import revoke_tokens
from espalier_common.api_keys import KEY_PREFIX, InvalidApiKey
from espalier_common.db import utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest

MAX_KEYS = 100  # of one user
_KEY = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{32}})_([A-Za-z0-9_-]{{43}})", re.ASCII)
# Compared with for an unknown key, so that it takes as long as a known one.
_NO_HASH = bytes(32)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, and the only time that it is told."""

    key: ApiKey
    text: str


@dataclass(frozen=True)
class KeyAccess:
    """What a key is worth at this moment."""

    key_id: str
    owner: User
    rights: Rights
    read_at: float  # Unix time before its rights were read
    expires_at: datetime | None


class ApiKeys:
    """The API keys of users."""

    def __init__(self, access: AccessRights) -> None:
        self._access = access

    def create(
        self, session: Session, *, name: str, permissions: Sequence[str], expires_at: datetime | None, by: Principal
    ) -> NewKey:
        """Makes a key of the caller. Raises InvalidKey, TooManyKeys."""
        owner = users.lock_user(session, by.subject)
        if owner is None or owner.disabled:
            raise ApiKeyNotFound(by.subject)
        self._check(self._access.of(session, owner), name, permissions, expires_at)
        if repository.count_keys(session, owner.id) >= MAX_KEYS:
            raise TooManyKeys(MAX_KEYS)
        key = ApiKey(user_id=owner.id, name=name, permissions=sorted(set(permissions)), expires_at=expires_at)
        key.id = str(uuid.uuid4())
        text = f"{KEY_PREFIX}{uuid.UUID(key.id).hex}_{secrets.token_urlsafe(32)}"
        key.key_hash, key.last_four = _hash(text), text[-4:]
        session.add(key)
        session.flush()
        return NewKey(key, text)

    def list(self, session: Session, page: PageRequest, *, of: Principal) -> Page[ApiKey]:
        """The caller's keys, newest first."""
        return repository.list_keys(session, of.subject, page)

    def delete(self, session: Session, key_id: str, *, by: Principal) -> None:
        """Revokes a key of the caller's. Raises ApiKeyNotFound."""
        key = repository.find_key(session, key_id)
        if key is None or key.user_id != by.subject:
            raise ApiKeyNotFound(key_id)
        session.delete(key)
        revoke_tokens(session, [key_id], utc_now())

    def use(self, session: Session, text: str) -> KeyAccess:
        """What the key is worth now: its permissions, as far as its owner has them. Notes the use.

        Raises InvalidApiKey for one that is unknown, expired, or whose owner is disabled.
        """
        now = utc_now()
        repository.wait_for_rights(session)
        match = _KEY.fullmatch(text)
        key = repository.find_key(session, str(uuid.UUID(match[1]))) if match else None
        matches = hmac.compare_digest(key.key_hash if key else _NO_HASH, _hash(text))
        if key is None or not matches or (key.expires_at is not None and key.expires_at <= now):
            raise InvalidApiKey
        owner = users.find_user(session, key.user_id)
        if owner is None or owner.disabled:
            raise InvalidApiKey
        rights = self._access.of(session, owner)
        repository.note_use(session, key.id, now)
        left = rights.only(key.permissions) if key.permissions else rights
        return KeyAccess(key.id, owner, left, now.timestamp(), key.expires_at)

    def _check(self, rights: Rights, name: str, permissions: Sequence[str], expires_at: datetime | None) -> None:
        found = find_name_violations(name, field="api_key.name")
        found += [
            FieldViolation(
                f"api_key.permissions[{index}]",
                f"{permission!r} is no permission that you have; a key has at most its owner's",
                "NOT_YOURS",
            )
            for index, permission in enumerate(permissions)
            if not (permission in self._access.built_in.grantable() and rights.scope_of(permission))
        ]
        if expires_at is not None and expires_at <= utc_now():
            found.append(FieldViolation("api_key.expire_time", "is over already; give a time to come", "PAST"))
        refuse_invalid(found, InvalidKey, what="key")


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
