"""A sign-in that is under way, kept in the browser alone: nothing is stored until it comes back.

`state` goes to the provider and comes back; `binding` stays in the browser that began. The state is signed over the
binding and the provider, so it is good with these two only, and for ten minutes. Nonce and PKCE verifier are derived
from it with our key: whoever sees the state in an address bar or a log learns neither.
"""

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

LIFETIME = 600  # seconds
_STATE = re.compile(r"[A-Za-z0-9_-]{22}\.([0-9]{10,12})\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class PendingLogin:
    """What a sign-in needs on its way out and back. `expires_at` in seconds since 1970."""

    state: str
    nonce: str
    verifier: str
    expires_at: int

    @property
    def challenge(self) -> str:
        """What the provider gets instead of the verifier (RFC 7636, S256)."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())


class LoginStates:
    """Makes states and knows them again. `key`: 32 secret bytes that all replicas share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def begin(self, provider: str) -> tuple[PendingLogin, str]:
        """A new sign-in, and the binding for the browser."""
        binding = secrets.token_urlsafe(32)
        head = f"{secrets.token_urlsafe(16)}.{int(time.time()) + LIFETIME}"
        state = f"{head}.{self._derive('state', head, provider, binding)}"
        return self._pending(state), binding

    def resume(self, state: str, *, provider: str, binding: str) -> PendingLogin | None:
        """The sign-in of a state that came back; None when it is not ours, too old, or another browser's."""
        if not _STATE.fullmatch(state):
            return None
        head, _, signature = state.rpartition(".")
        if not hmac.compare_digest(signature, self._derive("state", head, provider, binding)):
            return None
        pending = self._pending(state)
        return pending if pending.expires_at > time.time() else None

    def _pending(self, state: str) -> PendingLogin:
        return PendingLogin(
            state=state,
            nonce=self._derive("nonce", state),
            verifier=self._derive("verifier", state),
            expires_at=int(state.split(".")[1]),
        )

    def _derive(self, *parts: str) -> str:
        message = b"".join(hashlib.sha256(part.encode()).digest() for part in parts)
        return _text(hmac.digest(self._key, message, "sha256"))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
