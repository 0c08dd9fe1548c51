import json
import socket
from pathlib import Path
from typing import Any

import pytest

from espalier_client.errors import PlatformError
from espalier_client.local import platform, ports
from espalier_client.local.layout import Layout
from espalier_common.infra.processes import PortTaken


def assign(file: Path, environment: dict[str, str], running: tuple[str, ...] = ()) -> dict[str, int]:
    return ports.assign(
        ("auth", "gateway"), file=file, environment=environment, is_running=lambda name: name in running
    )


def free(taken: int = 0) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_a_free_port_is_chosen_and_remembered(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    environment = {"ESPALIER_GATEWAY_PORT": free()}
    first = assign(file, environment)
    assert first["gateway"] == int(environment["ESPALIER_GATEWAY_PORT"])
    assert first["auth"] in ports.FREE_RANGE
    assert assign(file, environment) == first


def test_a_taken_port_is_named_with_its_owner_and_the_setting(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(PlatformError) as caught:
            assign(tmp_path / "ports.json", {"ESPALIER_GATEWAY_PORT": str(port)})
    assert f"Port {port}" in caught.value.message
    assert "ESPALIER_GATEWAY_PORT" in caught.value.message
    assert "python" in caught.value.message or "pytest" in caught.value.message


def test_a_remembered_port_that_a_stranger_took_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        file.write_text(json.dumps({"auth": taken}))
        assert assign(file, {"ESPALIER_GATEWAY_PORT": free()})["auth"] != taken


def test_a_port_that_was_asked_for_is_left_to_whom_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, seen = int(free()), list[set[int]]()
    monkeypatch.setattr(ports, "_free_port", lambda taken: seen.append(taken) or 20_001)
    assign(tmp_path / "ports.json", {"ESPALIER_GATEWAY_PORT": str(wanted)})
    assert [wanted in taken for taken in seen] == [True]


def test_a_port_that_somebody_takes_in_between_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two platforms that start at the same time may choose the same one."""

    class Server:
        def is_running(self) -> bool:
            return False

        def start(self) -> None:
            pass

    lost = [PortTaken(20_001, "ESPALIER_AUTH_PORT"), PortTaken(20_002, "ESPALIER_CHAT_PORT")]

    def start_services(*_: Any) -> list[str]:
        if lost:
            raise lost.pop()
        return ["auth", "chat"]

    monkeypatch.setattr(platform, "_prepare", lambda *_: ("told", Server(), Server()))
    monkeypatch.setattr(platform, "_start_services", start_services)
    layout = Layout(tmp_path)
    assert platform._start_all(layout, {}, print) == ("told", ["postgres", "nats", "auth", "chat"])
    lost += [PortTaken(20_003, "ESPALIER_EVAL_PORT")] * platform.TRIES
    with pytest.raises(PortTaken):
        platform._start_all(layout, {}, print)


def test_the_gateway_stays_where_it_was_put(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    port = free()
    assign(file, {"ESPALIER_GATEWAY_PORT": port})
    assert assign(file, {})["gateway"] == int(port)


def test_a_port_that_our_own_process_has_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        port = ours.getsockname()[1]
        file.write_text(json.dumps({"gateway": port}))
        found = assign(file, {"ESPALIER_GATEWAY_PORT": str(port)}, running=("gateway",))
    assert found["gateway"] == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "8080 "])
def test_a_port_that_is_none_is_refused_with_the_setting(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlatformError, match="ESPALIER_GATEWAY_PORT"):
        assign(tmp_path / "ports.json", {"ESPALIER_GATEWAY_PORT": text})


def test_two_processes_on_one_port_are_refused(tmp_path: Path) -> None:
    port = free()
    with pytest.raises(PlatformError, match="ESPALIER_AUTH_PORT"):
        assign(tmp_path / "ports.json", {"ESPALIER_GATEWAY_PORT": port, "ESPALIER_AUTH_PORT": port})
