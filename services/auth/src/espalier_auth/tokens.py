"""Access tokens: who it is and what he may do, signed, for ten minutes."""

import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from espalier_auth.errors import InvalidCredentials
from espalier_auth.keys import SigningKeys
from espalier_auth.models import Person, User
from espalier_auth.roles import Rights, Roles
from espalier_common.identity import AUDIENCE, ISSUER, TOKEN_TYPE

# Compared with for an unknown service, so that it takes as long as a known one.
_NO_SERVICE = "0" * 64
LIFETIME = 600  # seconds; services verify tokens alone, so a right taken away stays for this long at most


@dataclass(frozen=True)
class AccessToken:
    """A signed token and the seconds until it expires."""

    text: str
    expires_in: int = LIFETIME


class Access(Protocol):
    """What somebody may do at this moment, and the roles that it comes from."""

    @property
    def rights(self) -> Rights: ...
    @property
    def role_names(self) -> list[str]: ...


@dataclass(frozen=True)
class _Bearer:
    subject: str
    name: str
    kind: Literal["user", "service"]
    roles: list[str]


class AccessTokens:
    """Issues access tokens for users and for services."""

    def __init__(self, keys: SigningKeys, *, roles: Roles, secret_hashes: Mapping[str, str]) -> None:
        self._keys = keys
        self._roles = roles
        self._secret_hashes = secret_hashes

    def prepare(self) -> None:
        """Sees to it that the next token needs no transaction, when one is under way that may not wait."""
        self._keys.load_if_due()

    def for_user(
        self, user: Person, access: Access, *, session_id: str, issued_at: float, must_enrol: bool = False
    ) -> AccessToken:
        """A token with the rights that the user had at `issued_at`: a change after that moment takes it back.

        `must_enrol`: with none of them, and the mark by which every service knows why.
        """
        if must_enrol:
            bearer, none = _Bearer(user.id, user.name, "user", []), Rights({})
            return self._issue(bearer, none, issued_at=issued_at, more={"sid": session_id, "must_enrol": True})
        bearer = _Bearer(user.id, user.name, "user", access.role_names)
        return self._issue(bearer, access.rights, issued_at=issued_at, more={"sid": session_id})

    def for_key(
        self, owner: User, rights: Rights, *, key_id: str, issued_at: float, until: datetime | None
    ) -> AccessToken:
        """A token for an API key, with the rights that the key has now, until it expires.

        `issued_at` lies before the rights were read. It ends with the key (`sid`), and with all tokens of its owner.
        """
        bearer = _Bearer(owner.id, owner.name, "user", [])
        of_key = {"api_key": key_id, "sid": key_id}
        left = LIFETIME if until is None else min(LIFETIME, max(1, int(until.timestamp() - issued_at)))
        return self._issue(bearer, rights, issued_at=issued_at, lifetime=left, more=of_key)

    def for_service(self, service: str, secret: str) -> AccessToken:
        """A token with the few rights that the service has in its own name. Raises InvalidCredentials."""
        expected = self._secret_hashes.get(service, _NO_SERVICE)
        if not hmac.compare_digest(expected, hashlib.sha256(secret.encode()).hexdigest()):
            raise InvalidCredentials
        rights = self._roles.service_rights(service)
        return self._issue(_Bearer(service, service, "service", []), rights, issued_at=int(time.time()))

    def public_keys(self) -> list[dict[str, str]]:
        """The keys that verify the tokens, as JWK mappings."""
        return self._keys.public()

    def _issue(
        self,
        bearer: _Bearer,
        rights: Rights,
        *,
        issued_at: float,
        lifetime: int = LIFETIME,
        more: Mapping[str, object] | None = None,
    ) -> AccessToken:
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": bearer.subject,
            "name": bearer.name,
            "kind": bearer.kind,
            "roles": bearer.roles,
            "permissions": self._roles.folded(rights.permissions),
            "scope": rights.scope,
            "narrower": {scope: self._roles.folded(names) for scope, names in rights.narrower().items()},
            "jti": uuid.uuid4().hex,
            # With fractions of a second: a token from right after a change is told from one from right before it.
            "iat": issued_at,
            "exp": int(issued_at) + lifetime,
        }
        return AccessToken(self._keys.sign(claims | dict(more or {}), token_type=TOKEN_TYPE), lifetime)
