"""Secrets of one platform: made once, kept in one file of mode 600, never shown."""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier_client.errors import PlatformError


@dataclass(frozen=True)
class Secrets:
    """Passwords by purpose. Each service has three: database, nats and its own at auth."""

    values: dict[str, str]

    @property
    def master_key(self) -> str:
        """32 random bytes in hex."""
        return self.values["master-key"]

    @property
    def former_master_key(self) -> str:
        """The master key of before, while the platform changes over to a new one; else empty."""
        return self.values.get("former-master-key", "")

    @property
    def postgres(self) -> str:
        """Password of PostgreSQL's superuser."""
        return self.values["postgres"]

    def database(self, service: str) -> str:
        """Password of a service's database role."""
        return self.values[f"database/{service}"]

    def nats(self, user: str) -> str:
        """Password of a NATS user."""
        return self.values[f"nats/{user}"]

    def service(self, service: str) -> str:
        """The secret that a service shows at auth."""
        return self.values[f"service/{service}"]

    def service_hashes(self, services: Sequence[str]) -> dict[str, str]:
        """What auth keeps of the services' secrets: SHA-256 in hex."""
        return {name: hashlib.sha256(self.service(name).encode()).hexdigest() for name in services}


def load_or_create(path: Path, *, services: Sequence[str], nats_users: Sequence[str]) -> Secrets:
    """Reads the file and adds what is missing. A file that is there but unreadable is an error: a new one would lock
    everybody out of the data."""
    values = _read(path)
    wanted = ["master-key", "postgres", *(f"nats/{name}" for name in nats_users)]
    wanted += [f"{kind}/{name}" for name in services for kind in ("database", "service")]
    missing = [name for name in wanted if name not in values]
    if missing:
        values |= {name: secrets.token_hex(32) for name in missing}
        _write(path, values)
    return Secrets(values)


def _read(path: Path) -> dict[str, str]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PlatformError(
            f"{path} is broken, and the data cannot be opened without it: bring it back from a backup, or move the "
            f"directory {path.parent.parent} away to begin anew."
        ) from error
    if not isinstance(values, dict):
        raise PlatformError(f"{path} is broken: it must hold a JSON object.")
    return {str(name): str(value) for name, value in values.items()}


def _write(path: Path, values: dict[str, str]) -> None:
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
