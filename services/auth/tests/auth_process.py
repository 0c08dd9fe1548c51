"""Auth as a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from espalier_auth.settings import AuthSettings
from espalier_common.infra.processes import free_port


class AuthProcess:
    """A real process of auth; `kill` is SIGKILL."""

    def __init__(self, settings: AuthSettings, home: Path, nats_url: str, **more: str) -> None:
        self._variables = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")} | {
            "ESPALIER_DATABASE_URL": settings.database_url,
            "ESPALIER_MASTER_KEY": settings.master_key.get_secret_value(),
            "ESPALIER_HOME": str(home),
            "ESPALIER_NATS_URL": nats_url,
            "ESPALIER_LISTEN": f"127.0.0.1:{free_port()}",
            **more,
        }
        self.log = home / "auth.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "espalier_auth"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._variables, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(15)
            self._process = None
