"""The keys that sign access tokens: made at the first start, kept in the database, sealed with the master key.

A private key is sealed with AES-256-GCM under a key derived from the master key; its `kid` is authenticated along, so a
sealed key moved to another row does not open. Whoever has the database alone cannot sign.
"""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.orm import Session

from espalier_auth import repository
from espalier_auth.models import SigningKey
from espalier_common.db import Database, utc_now
from espalier_common.settings import SettingsError
from espalier_common.telemetry import get_logger

MAX_AGE = timedelta(days=30)
# A service fetches the keys anew after five minutes at the latest, and then once in thirty seconds at most.
LEAD = timedelta(minutes=6)
# A process may sign with the former key until it looks again; what it signed lives ten minutes, and clocks differ.
RELOAD_SECONDS = 30.0
KEPT_AFTER_RETIREMENT = timedelta(seconds=RELOAD_SECONDS + 600 + 30)

_log = get_logger(__name__)

_NONCE_BYTES = 12


class MasterKey:
    """Derives one key for each purpose from the secret in ESPALIER_MASTER_KEY."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # Tells which master key sealed a row, and nothing about the key.
        self.id = hashlib.sha256(b"espalier master key id" + self.derive("id")).hexdigest()[:16]

    def derive(self, purpose: str) -> bytes:
        """32 bytes for this purpose alone."""
        return HKDF(SHA256(), 32, None, b"espalier auth " + purpose.encode()).derive(self._secret)

    def seal(self, plain: bytes, *, bound_to: str, purpose: str = "signing keys") -> bytes:
        """Nonce and ciphertext; opens only with the same `bound_to` and `purpose`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.derive(purpose)).encrypt(nonce, plain, bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str, purpose: str = "signing keys") -> bytes:
        """What was sealed. Raises InvalidTag when anything differs."""
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return AESGCM(self.derive(purpose)).decrypt(nonce, ciphertext, bound_to.encode())


class Sealer:
    """Seals secrets of one purpose with the present master key, and opens what that or the former one sealed."""

    def __init__(self, master_key: MasterKey, *, former: MasterKey | None, purpose: str) -> None:
        self._master_key = master_key
        self._former = former
        self._purpose = purpose

    def seal(self, plain: bytes, *, bound_to: str) -> tuple[bytes, str]:
        """The sealed secret, and the id of the master key that sealed it."""
        return self._master_key.seal(plain, bound_to=bound_to, purpose=self._purpose), self._master_key.id

    def open(self, sealed: bytes, *, master_key_id: str, bound_to: str) -> bytes | None:
        """What was sealed; None when neither master key opens it."""
        for key in (self._master_key, self._former):
            if key is not None and key.id == master_key_id:
                try:
                    return key.open(sealed, bound_to=bound_to, purpose=self._purpose)
                except InvalidTag:
                    return None
        return None

    def is_current(self, master_key_id: str) -> bool:
        """Whether the present master key is the one of this id."""
        return self._master_key.id == master_key_id


@dataclass(frozen=True)
class _Signer:
    kid: str
    private_key: Ed25519PrivateKey


class SigningKeys:
    """Signs tokens with the newest key and publishes all public ones. Thread-safe; loads at the first use.

    A key is published first and signs LEAD later, when every service has it; then its predecessor only verifies, until
    nothing lives that it signed. So nobody is signed out by a change of keys.

    `former` is the master key of before, while rows that it sealed may be about.
    """

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        *,
        former: MasterKey | None = None,
        max_age: timedelta = MAX_AGE,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._former = former
        self._max_age = max_age
        self._signer: _Signer | None = None
        self._reload_at = 0.0
        self._lock = threading.Lock()

    @property
    def are_changing_over(self) -> bool:
        """Whether a former master key was given."""
        return self._former is not None

    def load(self) -> None:
        """Opens the key that signs now; makes the first one. SettingsError when the master key does not open it."""
        with self._lock:
            if self._signer is None or time.monotonic() >= self._reload_at:
                with self._database.transaction() as session:
                    # Two processes that start together must agree on one key.
                    repository.lock_start(session)
                    key = repository.find_current_key(session, utc_now())
                    if key is None:
                        key = self._make_key(signs_from=utc_now())
                        session.add(key)
                    if self._signer is None or self._signer.kid != key.kid:
                        self._signer = self._open(key)
                self._reload_at = time.monotonic() + RELOAD_SECONDS

    def rotate(self, *, even_if_young: bool = False) -> None:
        """Brings keys on their way: retires, forgets, and makes the next one when the present one is old enough."""
        with self._database.transaction() as session:
            repository.lock_start(session)
            now = utc_now()
            current = repository.find_current_key(session, now)
            if current is None:
                return
            if repository.retire_keys_before(session, current):
                _log.info("a new signing key signs", kid=current.kid)
            repository.delete_retired_keys(session, now - KEPT_AFTER_RETIREMENT)
            is_old = now - (current.signs_from or current.created_at) >= self._max_age
            if (is_old or even_if_young) and repository.find_next_key(session, now) is None:
                following = self._make_key(signs_from=now + LEAD)
                session.add(following)
                _log.info("the next signing key is published", kid=following.kid, signs_from=str(following.signs_from))

    def reseal(self, also: Callable[[Session], int] | None = None) -> int:
        """Seals with the present master key what the former one sealed, all or nothing; gives the number of rows.

        `also` does the same for what is not a signing key. Processes that still have the former key go on with what
        they opened. Raises SettingsError when a row opens with neither; then nothing has changed.
        """
        with self._database.transaction() as session:
            repository.lock_start(session)
            sealed_anew = also(session) if also else 0
            for key in repository.list_keys(session):
                raw = self._unseal(key)
                if key.master_key_id != self._master_key.id:
                    key.sealed_private_key = self._master_key.seal(raw, bound_to=key.kid)
                    key.master_key_id = self._master_key.id
                    sealed_anew += 1
        _log.info("all that is sealed is sealed with the present master key", sealed_anew=sealed_anew)
        return sealed_anew

    def load_if_due(self) -> None:
        """`load`, when it was not done for a while."""
        if self._signer is None or time.monotonic() >= self._reload_at:
            self.load()

    def sign(self, claims: Mapping[str, Any], *, token_type: str) -> str:
        """A signed JWT with these claims."""
        self.load_if_due()
        signer = self._signer
        assert signer is not None  # noqa: S101  (load sets it or raises)
        return jwt.encode(
            dict(claims), signer.private_key, algorithm="EdDSA", headers={"typ": token_type, "kid": signer.kid}
        )

    def public(self) -> list[dict[str, str]]:
        """Public keys as JWK mappings, the current one first."""
        if self._signer is None:
            self.load()
        with self._database.reading() as session:
            return [_jwk(key) for key in repository.list_keys(session)]

    def _make_key(self, *, signs_from: datetime) -> SigningKey:
        private_key = Ed25519PrivateKey.generate()
        public = private_key.public_key().public_bytes_raw()
        kid = base64.urlsafe_b64encode(hashlib.sha256(public).digest()[:16]).rstrip(b"=").decode()
        sealed = self._master_key.seal(private_key.private_bytes_raw(), bound_to=kid)
        return SigningKey(
            kid=kid,
            public_key=public,
            sealed_private_key=sealed,
            master_key_id=self._master_key.id,
            signs_from=signs_from,
        )

    def _open(self, key: SigningKey) -> _Signer:
        return _Signer(key.kid, Ed25519PrivateKey.from_private_bytes(self._unseal(key)))

    def _unseal(self, key: SigningKey) -> bytes:
        sealed_with = next(
            (each for each in (self._master_key, self._former) if each and each.id == key.master_key_id), None
        )
        if sealed_with is None:
            raise SettingsError(
                f"ESPALIER_MASTER_KEY is not the key that sealed signing key {key.kid}: "
                f"the row says {key.master_key_id}, the setting gives {self._master_key.id}. Restore the former value, "
                "or give it as ESPALIER_FORMER_MASTER_KEY to change over."
            )
        try:
            return sealed_with.open(key.sealed_private_key, bound_to=key.kid)
        except InvalidTag as error:
            raise SettingsError(
                f"Signing key {key.kid} in the database is damaged: it does not open with the right master key. "
                "Restore the table signing_keys from a backup."
            ) from error


def _jwk(key: SigningKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "kid": key.kid, "x": x, "alg": "EdDSA", "use": "sig"}
