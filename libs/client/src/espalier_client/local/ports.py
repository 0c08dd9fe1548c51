"""Which port each process listens on: as the environment says, else as before, else the default or a free one."""

import contextlib
import json
import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from espalier_client.errors import PlatformError

DEFAULTS = {"gateway": 8080}
# Below the range from which the kernel gives ports to outgoing connections: a remembered port stays free for us.
FREE_RANGE = range(20_000, 32_000)


def setting_of(name: str) -> str:
    """The environment variable that sets a process's port."""
    return f"ESPALIER_{name.upper().replace('-', '_')}_PORT"


def assign(
    names: Sequence[str], *, file: Path, environment: Mapping[str, str], is_running: Callable[[str], bool]
) -> dict[str, int]:
    """Port of each process, remembered in `file`. Raises PlatformError when a port that was asked for is taken.

    A remembered port that a stranger took meanwhile is replaced by a free one; those who were told the old one are
    started again by `up`, since their settings change with it.
    """
    remembered = _read(file)
    asked_for = {name: _wanted(name, environment) for name in names}
    ports: dict[str, int] = {}
    for name in names:
        wanted = asked_for[name]
        port = wanted or remembered.get(name) or DEFAULTS.get(name)
        ours = is_running(name) and port == remembered.get(name)
        # People know the port of the gateway: it does not move without being told to.
        fixed = wanted is not None or name in DEFAULTS
        if port is not None and fixed and not ours and not is_free(port):
            raise PlatformError(_taken(port, name))
        if port is None or not (ours or is_free(port)):
            port = _free_port({*ports.values(), *remembered.values(), *filter(None, asked_for.values())})
        ports[name] = port
    _refuse_doubles(ports)
    if ports != remembered:
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(ports, indent=1), "utf-8")
        temporary.replace(file)
    return ports


def is_free(port: int) -> bool:
    """Whether nobody listens on the port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def owner_of(port: int) -> str:
    """Name and process id of who listens on a port; empty when this user may not know."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and tuple(connection.laddr)[1:2] == (port,):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


def _taken(port: int, name: str) -> str:
    owner = owner_of(port) or "another program"
    return (
        f"Port {port}, wanted for {name}, is taken by {owner}: stop it, or set {setting_of(name)} to a free port, "
        f"as in {setting_of(name)}={_free_port(set())} espalier up."
    )


def _wanted(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(setting_of(name), "")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise PlatformError(f"{setting_of(name)} must be a port from 1 to 65535, not {text!r}.")
    port = int(text)
    if port < 1024 and os.geteuid() != 0:
        raise PlatformError(f"{setting_of(name)}={port}: ports below 1024 need root; choose a higher one.")
    return port


def _refuse_doubles(ports: Mapping[str, int]) -> None:
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if port in seen:
            raise PlatformError(
                f"{setting_of(name)} and {setting_of(seen[port])} are both {port}: set one to another port."
            )
        seen[port] = name


def _free_port(taken: set[int]) -> int:
    for port in random.sample(FREE_RANGE, 200):
        if port not in taken and is_free(port):
            return port
    raise PlatformError("No free port was found between 20000 and 32000: stop some of the programs that listen there.")


def _read(file: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(file.read_text("utf-8")).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
