"""Whose address counts: the socket's, and behind trusted proxies the one that they saw."""

from ipaddress import ip_network
from typing import Any

import pytest

from espalier_common.settings import SettingsError, read_settings
from espalier_gateway.clients import client_address
from espalier_gateway.settings import GatewaySettings

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("socket", "forwarded", "expected"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "1.2.3.4", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.7, 10.0.0.9", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, <script>, 10.0.0.9", "10.0.0.9"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("", "1.2.3.4", ""),
    ],
)
def test_only_trusted_proxies_are_believed(socket: str, forwarded: str, expected: str) -> None:
    assert client_address(socket, forwarded, PROXIES) == expected


def test_without_trusted_proxies_no_header_counts() -> None:
    assert client_address("10.0.0.1", "203.0.113.7", []) == "10.0.0.1"


def test_a_proxy_that_is_no_network_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_TRUSTED_PROXIES", '["the proxy"]')

    with pytest.raises(SettingsError, match="no network such as"):
        read_settings(GatewaySettings)


async def test_what_a_request_says_of_the_gateways_own_headers_goes_nowhere(gateway: Any) -> None:
    headers = {"x-espalier-client-address": "203.0.113.7", "x-espalier-gateway": "made up"}
    await gateway.client.post("/api/v1/auth/login", json={"username": "ann", "password": "x"}, headers=headers)

    assert not any(name.startswith("x-espalier") for name in gateway.fakes["auth"].metadata[-1])
