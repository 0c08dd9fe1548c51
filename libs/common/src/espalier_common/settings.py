"""Settings that every service has, read once from the environment by `espalier_common.rpc.server.run`.

A service subclasses `ServiceSettings` and adds only its own fields. Nothing fetches settings: they are passed.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableSetting

Settings = TypeVar("Settings", bound="ServiceSettings")


class SettingsError(Exception):
    """A setting is missing or wrong; the message names the variable and says what to write there."""


class ServiceSettings(BaseSettings):
    """Environment variables with the prefix `ESPALIER_`; immutable once read."""

    model_config = SettingsConfigDict(env_prefix="ESPALIER_", frozen=True, extra="ignore", hide_input_in_errors=True)

    listen: str = Field(default="127.0.0.1:0", description="host:port of the gRPC server; port 0 picks a free one")
    metrics_listen: str = Field(default="", description="host:port of Prometheus /metrics; empty means off")
    # Not in repr: the two URLs carry passwords.
    database_url: Annotated[str, Field(repr=False)] = Field(
        default="", description="postgresql+psycopg2://… of the service's own database"
    )
    nats_url: Annotated[str, Field(repr=False)] = Field(default="", description="nats://user:password@host:port")
    artifacts_url: str = Field(default="", description="artifact store, file:///… or s3://…")
    services: dict[str, str] = Field(default_factory=dict, description='addresses by name: {"auth": "127.0.0.1:7001"}')
    service_secret: SecretStr = Field(default=SecretStr(""), description="exchanged at auth for a service token")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    migrate_on_start: bool = Field(default=False, description="run the migrations before serving (one machine)")
    home: Path | None = Field(default=None, description="the var/ directory on one machine")

    @model_validator(mode="after")
    def _addresses_are_addresses(self) -> Self:
        for name in ("listen", "metrics_listen"):
            value = getattr(self, name)
            if value:
                _check_address(value, name)
        return self

    def address_of(self, service: str) -> str:
        """host:port of another service. SettingsError when ESPALIER_SERVICES does not name it."""
        try:
            return self.services[service]
        except KeyError:
            known = ", ".join(sorted(self.services)) or "nothing"
            raise SettingsError(f"ESPALIER_SERVICES has no address of {service!r}; it names {known}.") from None


def read_settings(settings_type: type[Settings]) -> Settings:
    """The settings out of the environment. SettingsError that names every wrong variable in one sentence."""
    try:
        return settings_type()
    except ValidationError as error:
        found = "; ".join(f"{_variable(item['loc'])}: {item['msg']}" for item in error.errors(include_input=False))
        raise SettingsError(f"The settings are wrong: {found}") from error
    except UnreadableSetting as error:
        raise SettingsError(f"The settings are wrong: {error}") from error


def _variable(location: tuple[int | str, ...]) -> str:
    return f"ESPALIER_{str(location[0]).upper()}" if location else "ESPALIER_…"


def split_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 7001) of "127.0.0.1:7001"; brackets around an IPv6 host are removed."""
    parts = urlsplit(f"//{address}")
    if not parts.hostname or parts.port is None:
        raise ValueError(f"{address!r} is not host:port")
    return parts.hostname, parts.port


def check_origin(url: str) -> str:
    """The public address without a slash at its end. ValueError unless it is empty or http(s)://host[:port]."""
    parts = urlsplit(url)
    rest = parts.query or parts.fragment or parts.path not in {"", "/"}
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname or rest):
        raise ValueError(f"must be http(s)://host[:port] without a path, not {url!r}")
    return url.rstrip("/")


def _check_address(address: str, name: str) -> None:
    try:
        split_address(address)
    except ValueError as error:
        raise ValueError(
            f"ESPALIER_{name.upper()} must be host:port, such as 127.0.0.1:7001, not {address!r}"
        ) from error
