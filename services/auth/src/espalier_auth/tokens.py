"""Access tokens: who it is and what he may do, signed, for ten minutes."""

import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from espalier_auth.errors import InvalidCredentials
from espalier_auth.keys import SigningKeys
from espalier_auth.models import User
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


class AccessTokens:
    """Issues access tokens for users and for services."""

    def __init__(self, keys: SigningKeys, *, roles: Roles, secret_hashes: Mapping[str, str]) -> None:
        self._keys = keys
        self._roles = roles
        self._secret_hashes = secret_hashes

    def for_user(self, user: User) -> AccessToken:
        """A token with the rights that the user's roles give now."""
        rights = self._roles.rights(user.roles)
        return self._issue(subject=user.id, name=user.name, kind="user", roles=user.roles, rights=rights)

    def for_service(self, service: str, secret: str) -> AccessToken:
        """A token with the few rights that the service has in its own name. Raises InvalidCredentials."""
        expected = self._secret_hashes.get(service, _NO_SERVICE)
        if not hmac.compare_digest(expected, hashlib.sha256(secret.encode()).hexdigest()):
            raise InvalidCredentials
        rights = self._roles.service_rights(service)
        return self._issue(subject=service, name=service, kind="service", roles=[], rights=rights)

    def public_keys(self) -> list[dict[str, str]]:
        """The keys that verify the tokens, as JWK mappings."""
        return self._keys.public()

    def _issue(
        self, *, subject: str, name: str, kind: Literal["user", "service"], roles: list[str], rights: Rights
    ) -> AccessToken:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "name": name,
            "kind": kind,
            "roles": roles,
            "permissions": sorted(rights.permissions),
            "scope": rights.scope,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + LIFETIME,
        }
        return AccessToken(self._keys.sign(claims, token_type=TOKEN_TYPE))
