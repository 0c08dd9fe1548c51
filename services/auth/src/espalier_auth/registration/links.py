"""Links that carry a secret. They start with the configured public address, never with what a request says of itself.

The secret stands behind the #, which browsers send to nobody: it is in no log and no Referer.
"""

import hashlib
import secrets
from dataclasses import dataclass

from espalier_auth.registration.errors import PublicUrlMissing


@dataclass(frozen=True)
class Links:
    """Addresses in the console. `public_url` is empty where it is not configured."""

    public_url: str

    def to_register(self, token: str) -> str:
        """Where an invited person registers. Raises PublicUrlMissing."""
        return f"{self._base()}/register#invitation={token}"

    def to_reset(self, token: str) -> str:
        """Where a user chooses a new password. Raises PublicUrlMissing."""
        return f"{self._base()}/reset-password#token={token}"

    def _base(self) -> str:
        if not self.public_url:
            raise PublicUrlMissing
        return self.public_url


def new_token() -> tuple[str, bytes]:
    """A token for a link, and the hash that is kept of it."""
    token = secrets.token_urlsafe(32)
    return token, hash_of(token)


def hash_of(token: str) -> bytes:
    """How a token is stored."""
    return hashlib.sha256(token.encode()).digest()
