"""Devices that signed in before: a token that each sign-in gives and the next one shows.

It proves nothing but that the right password was once given here. Guesses from such a device are counted apart from
those of strangers, so that strangers cannot shut it out.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time

LIFETIME = 365 * 86_400  # seconds
_MAC_BYTES = 16


class DeviceTokens:
    """Makes and reads device tokens: user, device, day and a MAC over them. Nothing is kept about them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, user_id: str, *, device: str = "") -> str:
        """A token for this user's device; the same device keeps its name."""
        body = f"{user_id}.{device or secrets.token_hex(8)}.{int(time.time())}".encode()
        return base64.urlsafe_b64encode(body + self._mac(body)).decode().rstrip("=")

    def read(self, token: str, *, user_id: str) -> str:
        """The device; empty when the token is none, is old, or belongs to somebody else."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return ""
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            return ""
        owner, device, issued_at = body.decode().split(".")
        return device if owner == user_id and time.time() - int(issued_at) < LIFETIME else ""

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC_BYTES]
