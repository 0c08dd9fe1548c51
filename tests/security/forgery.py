"""Tokens that nobody should accept, some of them signed with the very key of the running platform."""

import base64
import json
import time
from contextlib import closing
from typing import Any

import psycopg2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from platform_process import Platform

from espalier_auth.keys import MasterKey
from espalier_auth.settings import decode_master_key


def encoded(part: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class Forger:
    """Signs what it is told to: with the platform's own key, or with one of its own."""

    def __init__(self, kid: str, key: Ed25519PrivateKey, claims: dict[str, Any]) -> None:
        self.kid = kid
        self.key = key
        self._claims = claims

    @property
    def claims(self) -> dict[str, Any]:
        """What a token of the administrator says that is written now: what is refused is refused for another thing."""
        now = int(time.time())
        return {**self._claims, "iat": now, "exp": now + self._claims["exp"] - self._claims["iat"]}

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "EdDSA", "typ": "at+jwt", "kid": self.kid}

    def token(self, header: dict[str, Any] | bytes | None = None, **changes: Any) -> str:
        """A token of the administrator with some claims changed; None leaves one out."""
        claims = {name: value for name, value in {**self.claims, **changes}.items() if value is not None}
        return self.of(json.dumps(claims).encode(), header)

    def of(self, payload: bytes, header: dict[str, Any] | bytes | None = None) -> str:
        """A token of exactly these bytes."""
        head = header if isinstance(header, bytes) else json.dumps(header or self.header).encode()
        signed = f"{encoded(head)}.{encoded(payload)}"
        return f"{signed}.{encoded(self.key.sign(signed.encode()))}"

    def expired(self) -> str:
        """What was good until a minute ago."""
        now = int(time.time())
        return self.token(iat=now - 660, exp=now - 60)

    def forged(self) -> str:
        """All as it should be, but for the key."""
        return Forger(self.kid, Ed25519PrivateKey.generate(), self.claims).token()


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def forger_of(platform: Platform, token: str) -> Forger:
    """Takes the signing key out of the platform's database, with its master key, and the claims out of a token."""
    kept = json.loads((platform.home / "secrets" / "secrets.json").read_text("utf-8"))
    ports = json.loads((platform.home / "run" / "ports.json").read_text("utf-8"))
    header = json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))
    address = {"host": "127.0.0.1", "port": ports["postgres"], "dbname": "auth", "user": "auth"}
    with closing(psycopg2.connect(**address, password=kept["database/auth"])) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT sealed_private_key FROM signing_keys WHERE kid = %s", (header["kid"],))
        (sealed,) = cursor.fetchone()
    master = MasterKey(decode_master_key(kept["master-key"]))
    raw = master.open(bytes(sealed), bound_to=header["kid"])
    return Forger(header["kid"], Ed25519PrivateKey.from_private_bytes(raw), claims_of(token))
