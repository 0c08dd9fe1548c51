"""What auth adds to the settings of every service."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from espalier_auth.audit.destinations import Address, read_address
from espalier_auth.oidc.providers import ProviderSettings, read_providers
from espalier_common.settings import ServiceSettings, check_origin

MINIMUM_PASSWORD_LENGTH = 12


@dataclass(frozen=True)
class SessionRules:
    """How long sessions live."""

    idle: timedelta  # a refresh token waits this long for its use
    total: timedelta  # then the password is asked for again, however busy the session is
    needs_second_factor: bool = False  # who signs in with a password and has none may only enrol one


class AuthSettings(ServiceSettings):
    """Environment variables `ESPALIER_…`; see espalier_common.settings for those that every service has."""

    master_key: SecretStr = Field(
        description="32 random bytes in hex or base64 (`openssl rand -base64 32`); seals the signing keys"
    )
    former_master_key: SecretStr = Field(
        default=SecretStr(""), description="what ESPALIER_MASTER_KEY was before; the keys it sealed are sealed anew"
    )
    admin_password: SecretStr = Field(default=SecretStr(""), description="password of the first administrator")
    admin_password_file: Path | None = Field(
        default=None, description="where a generated one is written, mode 600; default <home>/admin-password"
    )
    service_secret_hashes: dict[str, str] = Field(
        default_factory=dict, description='SHA-256 in hex of each service\'s secret: {"chat": "9f86d0…"}'
    )
    # A session that nobody uses ends after this; used ones go on up to session_days.
    refresh_token_days: int = Field(default=14, ge=1, le=365, description="days a refresh token waits for its use")
    session_days: int = Field(default=90, ge=1, le=3650, description="days after which everybody signs in again")
    # These three and the two above may be changed by an administrator where the environment does not say them.
    registration: Literal["closed", "invitation", "open"] = Field(default="closed", description="who may register")
    second_factor: Literal["optional", "required"] = Field(
        default="optional", description="whether whoever signs in with a password needs a second factor"
    )
    password_min_length: int = Field(
        default=MINIMUM_PASSWORD_LENGTH,
        ge=MINIMUM_PASSWORD_LENGTH,
        le=128,
        description="characters that a new password needs",
    )
    public_url: str = Field(
        default="",
        description="address that browsers use, such as https://espalier.example.org; for links to the console",
    )
    registration_roles: list[str] = Field(
        default_factory=lambda: ["tester"], description="JSON list of the roles of whoever registers openly"
    )
    smtp_host: str = Field(default="", description="mail server for forgotten passwords; empty: no mail is sent")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="its port")
    smtp_security: Literal["starttls", "tls", "none"] = Field(default="starttls", description="how mail is encrypted")
    smtp_username: str = Field(default="", description="name at the mail server; empty: no sign-in")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="password at the mail server")
    smtp_from: str = Field(default="espalier@localhost", description="sender of our mails")
    throttle: bool = Field(default=True, description="slow down whoever tries wrong passwords")
    signing_key_days: int = Field(default=30, ge=1, le=3650, description="days after which the next key signs tokens")
    # It holds client secrets, so it is shown as little as they are.
    oidc_providers: SecretStr = Field(
        default=SecretStr(""), description="identity providers: a JSON list, or the path of a file with one"
    )
    # It may hold a password or a token, so it is shown as little as they are.
    audit_forward_url: SecretStr = Field(
        default=SecretStr(""), description="where audit events go besides: syslog+tls://…, syslog+tcp://… or https://…"
    )
    audit_forward_secret: SecretStr = Field(
        default=SecretStr(""), description="signs what goes to a webhook: 24 random bytes or more in base64"
    )
    audit_forward_secret_file: Path | None = Field(default=None, description="file with that secret, in its place")
    audit_forward_ca: Path | None = Field(
        default=None, description="certificates in PEM that vouch for the receiver, in place of those of the system"
    )
    password_workers: int = Field(default=0, ge=0, le=256, description="passwords checked at a time; 0: one a core")

    @field_validator("master_key")
    @classmethod
    def _master_key_is_strong(cls, value: SecretStr) -> SecretStr:
        decode_master_key(value.get_secret_value())
        return value

    @field_validator("former_master_key")
    @classmethod
    def _former_master_key_is_one(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            decode_master_key(value.get_secret_value())
        return value

    @field_validator("admin_password")
    @classmethod
    def _admin_password_is_long(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < MINIMUM_PASSWORD_LENGTH:
            raise ValueError(f"must have at least {MINIMUM_PASSWORD_LENGTH} characters")
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_origin(cls, value: str) -> str:
        return check_origin(value)

    @field_validator("oidc_providers")
    @classmethod
    def _providers_are_right(cls, value: SecretStr) -> SecretStr:
        read_providers(value.get_secret_value())
        return value

    @field_validator("service_secret_hashes")
    @classmethod
    def _hashes_are_hashes(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"the value of {name!r} must be a SHA-256 in hex: 64 digits 0-9 and a-f")
        return value

    @model_validator(mode="after")
    def _a_database_is_named(self) -> Self:
        if not self.database_url:
            raise ValueError("ESPALIER_DATABASE_URL is missing: auth keeps its users in PostgreSQL")
        return self

    @model_validator(mode="after")
    def _providers_know_the_way_back(self) -> Self:
        if self.oidc_providers.get_secret_value().strip() and not self.public_url:
            raise ValueError("ESPALIER_PUBLIC_URL is missing: identity providers send browsers back to it")
        return self

    @model_validator(mode="after")
    def _events_can_be_forwarded(self) -> Self:
        self.audit_address()
        return self

    def audit_address(self) -> Address | None:
        """Where audit events go besides; None when nowhere. ValueError when the settings of it are wrong."""
        url = self.audit_forward_url.get_secret_value().strip()
        if not url:
            return None
        secret = self.audit_forward_secret.get_secret_value()
        if self.audit_forward_secret_file is not None:
            try:
                secret = self.audit_forward_secret_file.read_text("ascii")
            except (OSError, ValueError) as error:
                raise ValueError(f"ESPALIER_AUDIT_FORWARD_SECRET_FILE cannot be read: {type(error).__name__}") from None
        return read_address(url, secret=secret, authorities=self.audit_forward_ca)

    def roles_named(self) -> dict[str, list[str]]:
        """Where the settings name roles, by role: in the words of a sentence."""
        found: dict[str, list[str]] = {}
        for role in self.registration_roles:
            found.setdefault(role, []).append("ESPALIER_REGISTRATION_ROLES")
        for provider in self.identity_providers():
            mapped = {role for roles in provider.role_mapping.values() for role in roles}
            for role in sorted(mapped | set(provider.default_roles)):
                found.setdefault(role, []).append(f"the settings of the identity provider {provider.name!r}")
        return found

    def identity_providers(self) -> tuple[ProviderSettings, ...]:
        """The providers that one may sign in with."""
        return read_providers(self.oidc_providers.get_secret_value())

    def master_key_bytes(self) -> bytes:
        """The bytes of the master key."""
        return decode_master_key(self.master_key.get_secret_value())

    def former_master_key_bytes(self) -> bytes | None:
        """The bytes of the master key of before; None when nothing is changing over."""
        text = self.former_master_key.get_secret_value()
        return decode_master_key(text) if text else None

    def password_file(self) -> Path | None:
        """Where the first administrator's generated password is written; None when no place is known."""
        if self.admin_password_file is not None:
            return self.admin_password_file
        return self.home / "admin-password" if self.home is not None else None


def decode_master_key(text: str) -> bytes:
    """The bytes of a master key. ValueError when it is shorter than 32 bytes or plainly not random."""
    key = _decode(text.strip())
    if len(key) < 32:
        raise ValueError(f"must carry at least 32 random bytes in hex or base64; it carries {len(key)}. {_HOW}")
    # 32 random bytes have fewer than 16 different values once in 10^20 keys.
    if len(set(key)) < 16:
        raise ValueError(f"is not random: its {len(key)} bytes have {len(set(key))} different values. {_HOW}")
    return key


_HOW = "Make one with: openssl rand -base64 32"


def _decode(text: str) -> bytes:
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text):
        return bytes.fromhex(text)
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is neither hex nor base64. {_HOW}") from None
