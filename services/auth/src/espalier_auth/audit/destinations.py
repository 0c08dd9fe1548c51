"""Where audit events go besides the log: one place, named by an address of the operator's environment."""

import base64
import binascii
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import orjson

from espalier_auth.audit.models import CHAINED, AuditEntry

LEAST_SECRET_BYTES = 24
_SYSLOG = ("syslog+tls", "syslog+tcp")
_WEBHOOK = ("https", "http")
_KINDS = f"{_SYSLOG[0]}://host:port, {_SYSLOG[1]}://host:port, https://… or http://…"


class Undelivered(Exception):
    """The destination did not confirm that it has the events; the message says why, without secrets."""


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """An event on its way; `json` is one line, with the names of the API."""

    sequence: int
    time: datetime
    action: str
    result: str
    json: bytes


class Destination(Protocol):
    """A receiver of events."""

    def send(self, events: Sequence[Outgoing]) -> None:
        """Returns once the receiver has all of them. Blocks, a minute at most. Raises Undelivered."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """The setting, checked. Path, query and user may be secrets, so that `name` has none of them."""

    parts: SplitResult
    context: ssl.SSLContext | None  # None where nothing is encrypted
    signing_key: bytes  # of webhooks

    @property
    def name(self) -> str:
        """What people and the database call it."""
        default = {"https": 443, "http": 80}.get(self.parts.scheme)
        host = self.host if ":" not in self.host else f"[{self.host}]"
        return f"{self.parts.scheme}://{host}:{self.parts.port or default}"

    @property
    def host(self) -> str:
        return self.parts.hostname or ""

    def open(self) -> Destination:
        """The receiver itself; connects when something is sent."""
        if self.parts.scheme in _WEBHOOK:
            from espalier_auth.audit.webhook import Webhook

            return Webhook(self.parts, context=self.context, signing_key=self.signing_key)
        from espalier_auth.audit.syslog import Syslog

        return Syslog(self.host, self.parts.port or 0, context=self.context)


def read_address(url: str, *, secret: str, authorities: Path | None) -> Address:
    """The address of the settings. ValueError with what is wrong, which never repeats the address or the secret."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in (*_SYSLOG, *_WEBHOOK) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isascii() or not url.isprintable() or " " in url or parts.fragment:
        raise ValueError(f"ESPALIER_AUDIT_FORWARD_URL must be one of {_KINDS}")
    if parts.scheme in _SYSLOG and (not parts.port or parts.path.strip("/") or parts.query or "@" in parts.netloc):
        raise ValueError("ESPALIER_AUDIT_FORWARD_URL needs host and port, and nothing more, for syslog")
    is_encrypted = parts.scheme in ("syslog+tls", "https")
    return Address(
        parts=parts,
        context=_context(authorities) if is_encrypted else None,
        signing_key=_signing_key(secret) if parts.scheme in _WEBHOOK else b"",
    )


def outgoing(entry: AuditEntry) -> Outgoing:
    """The event as it leaves: what the API gives, so that an export and what was forwarded can be compared."""
    values = {name: getattr(entry, name) for name in CHAINED if name != "words"}
    values |= {
        "time": entry.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "result": f"AUDIT_RESULT_{entry.result}",
        "hash": bytes(entry.hash).hex(),
    }
    return Outgoing(
        sequence=entry.sequence, time=entry.time, action=entry.action, result=entry.result, json=orjson.dumps(values)
    )


def _context(authorities: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise ValueError(f"ESPALIER_AUDIT_FORWARD_CA is no file of certificates in PEM: {error}") from None


def _signing_key(secret: str) -> bytes:
    """The bytes that sign, of what <https://www.standardwebhooks.com> calls a symmetric secret."""
    text = secret.strip().removeprefix("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < LEAST_SECRET_BYTES:
        raise ValueError(
            "ESPALIER_AUDIT_FORWARD_SECRET (or the file of ESPALIER_AUDIT_FORWARD_SECRET_FILE) must carry at least "
            f"{LEAST_SECRET_BYTES} random bytes in base64. Make one with: openssl rand -base64 32"
        )
    return key
