"""Tokens of signed-in users, by server, in ~/.config/espalier/credentials.json (mode 600)."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espalier_client.errors import ClientError


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens of one session. `expires_at` is the access token's end, unix seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: float
    username: str


@dataclass(frozen=True)
class CredentialStore:
    """The file. Every change happens under a lock: a refresh token may be used once, whoever uses it."""

    path: Path

    @classmethod
    def default(cls) -> "CredentialStore":
        """The file of this user, below XDG_CONFIG_HOME."""
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return cls(Path(config) / "espalier" / "credentials.json")

    def get(self, server: str) -> Tokens | None:
        """The tokens for a server; None when nobody has signed in there."""
        kept = self._read().get("servers", {}).get(server)
        return Tokens(**kept) if kept else None

    def last_server(self) -> str | None:
        """The server that was signed in to last."""
        server = self._read().get("last")
        return str(server) if server else None

    def put(self, server: str, tokens: Tokens) -> None:
        """Keeps tokens. Call it inside `locked`, as with `remove`."""
        content = self._read()
        content.setdefault("servers", {})[server] = asdict(tokens)
        content["last"] = server
        self._write(content)

    def remove(self, server: str) -> None:
        """Forgets the tokens for a server."""
        content = self._read()
        content.get("servers", {}).pop(server, None)
        self._write(content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the file alone, over all commands of this user that run now."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        temporary = self.path.with_suffix(".tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            temporary.replace(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ClientError:
        return ClientError(
            f"{self.path} cannot be written to ({error.strerror}): mend that, or set XDG_CONFIG_HOME to another place."
        )
