"""The identity providers of ESPALIER_OIDC_PROVIDERS: a JSON list, or the path of a file that holds one.

[{"name": "corporate", "display_name": "Corporate login", "issuer": "https://login.example.org",
  "client_id": "espalier", "client_secret": "…",
  "groups_claim": "groups", "role_mapping": {"ml-engineers": ["trainer"]}, "default_roles": ["tester"]}]
"""

import json
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""All are asymmetric: with HS256 everybody who knows the client secret could vouch for anybody."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MAX_FILE_BYTES = 1 << 20


class ProviderSettings(BaseModel):
    """One identity provider."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    display_name: Annotated[str, Field(max_length=100)] = ""
    issuer: str
    client_id: Annotated[str, Field(min_length=1)]
    # Empty for a public client, for which PKCE is the only proof.
    client_secret: SecretStr = SecretStr("")
    # How the secret is proven; empty: with HTTP Basic where the provider takes it.
    client_authentication: Literal["", "client_secret_basic", "client_secret_post"] = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    username_claim: str = "preferred_username"
    # Claim with the names of the user's groups.
    groups_claim: str = "groups"
    role_mapping: dict[str, tuple[str, ...]] = {}
    # Roles of everybody whom the provider vouches for.
    default_roles: tuple[str, ...] = ()
    # Strengths of a sign-in (acr) of which the provider has to vouch for one; none: whichever it was.
    acr_values: tuple[Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")], ...] = ()
    algorithms: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "ES384", "EdDSA")

    @property
    def title(self) -> str:
        """What people call it."""
        return self.display_name or self.name

    @field_validator("issuer")
    @classmethod
    def _issuer_is_safe(cls, value: str) -> str:
        if not is_safe_url(value) or urlsplit(value).query or urlsplit(value).fragment:
            raise ValueError("must be the https:// address that the provider calls its issuer (http on loopback only)")
        return value

    @field_validator("scopes")
    @classmethod
    def _scopes_have_openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError('must have "openid"')
        return value


def is_safe_url(url: str) -> bool:
    """Whether secrets may go there: https, or http on this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )


def read_providers(text: str) -> tuple[ProviderSettings, ...]:
    """The providers of the setting. ValueError with every mistake in it, and without what was written there."""
    if not (text := text.strip()):
        return ()
    if not text.startswith("["):
        text = _read_file(Path(text))
    try:
        providers = TypeAdapter(tuple[ProviderSettings, ...]).validate_python(json.loads(text))
    except ValidationError as error:
        found = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))
        raise ValueError(f"is wrong: {'; '.join(found)}") from None
    except ValueError:
        raise ValueError("is neither a JSON list nor the path of a file with one") from None
    for key in ("name", "issuer"):
        if len({getattr(provider, key) for provider in providers}) < len(providers):
            raise ValueError(f"has two providers with the same {key}")
    return providers


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ValueError(f"names a file that cannot be read: {type(error).__name__}") from None
