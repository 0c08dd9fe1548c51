"""Settings of the gateway, on top of those that every service has."""

from ipaddress import ip_network
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from espalier_common.settings import ServiceSettings, check_origin, split_address

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class GatewaySettings(ServiceSettings):
    """Environment variables with the prefix `ESPALIER_`."""

    listen: str = Field(default="127.0.0.1:8080", description="host:port of the HTTP server")
    public_url: str = Field(
        default="",
        description="address that browsers use, such as https://espalier.example.org; http://<listen> if empty",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="JSON list of host names accepted in the Host header, besides loopback and the public URL's",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="JSON list of networks, such as 10.0.0.0/8, of the proxies whose X-Forwarded-For is believed",
    )
    docs: Literal["auto", "public", "signed-in", "off"] = Field(
        default="auto",
        description="who sees /docs and /openapi.json; auto: everybody on loopback, else signed-in users",
    )
    max_body_bytes: int = Field(default=4 << 20, ge=1024, description="largest JSON body, in bytes")
    head_seconds: float = Field(
        default=20, gt=0, description="longest time that the headers of a request may take to arrive"
    )
    body_seconds: float = Field(default=30, gt=0, description="longest time that a JSON body may take to arrive")
    # 20 GiB: a few hundred million tokens of JSONL, and still one evening's upload at 10 Mbit/s.
    max_upload_bytes: int = Field(default=20 << 30, ge=1, description="largest uploaded file, in bytes")
    upload_idle_seconds: float = Field(
        default=60, gt=0, description="an upload that sends nothing this long is cut off"
    )
    call_seconds: float = Field(default=30, gt=0, description="deadline of a call to a service")
    heartbeat_seconds: float = Field(default=15, gt=0, description="pause between heartbeats of a silent stream")
    stall_seconds: float = Field(
        default=30, gt=0, description="a stream whose reader takes nothing this long is cut off"
    )
    retry_milliseconds: int = Field(default=2000, ge=0, description="when a browser reconnects a stream that broke off")
    drain_seconds: float = Field(default=8, ge=0, description="time that running requests get after SIGTERM")
    refresh_cookie_seconds: int = Field(
        default=30 * 86_400, gt=0, description="life of the refresh cookie; the token in it may end sooner"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{network!r} is no network such as 10.0.0.0/8: {error}") from error
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_origin(cls, value: str) -> str:
        return check_origin(value)

    @property
    def origin(self) -> str:
        """scheme://host[:port] under which browsers know the platform, as they write it in the Origin header."""
        return (self.public_url or f"http://{self.listen}").lower()

    @property
    def is_loopback(self) -> bool:
        """Whether the platform is used from the machine it runs on alone, without TLS."""
        parts = urlsplit(self.origin)
        return parts.scheme == "http" and parts.hostname in LOOPBACK_NAMES

    @property
    def secure_cookies(self) -> bool:
        """Cookies are for HTTPS alone, except on loopback, where browsers keep no Secure cookie over plain http."""
        return not self.is_loopback

    @property
    def docs_are_public(self) -> bool:
        """Whether /docs and /openapi.json ask for no sign-in."""
        return self.docs == "public" or (self.docs == "auto" and self.is_loopback)

    @property
    def hosts(self) -> frozenset[str]:
        """Host names accepted in the Host header, lower-case, without port."""
        own = urlsplit(self.origin).hostname or ""
        listen = split_address(self.listen)[0]
        wildcard = listen in {"0.0.0.0", "::"}  # noqa: S104  (compared, not bound)
        return frozenset(
            name.lower().strip("[]") for name in (*LOOPBACK_NAMES, own, "" if wildcard else listen, *self.allowed_hosts)
        ) - {""}
