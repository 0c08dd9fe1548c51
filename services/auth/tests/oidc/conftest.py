"""Auth that relies on a real provider."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .provider_process import PUBLIC_URL, SECRET, RealProvider, Relying, StartOidc, running_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[RealProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def start_oidc(start_auth: Any, provider: RealProvider) -> StartOidc:
    async def create(at: RealProvider = provider, **changes: Any) -> Relying:
        one = {
            "name": "corporate",
            "display_name": "Corporate login",
            "issuer": at.issuer,
            "client_id": "espalier",
            "client_secret": SECRET,
            "default_roles": ["tester"],
            "role_mapping": {"ml": ["trainer"], "boss": ["admin"], "odd": ["no-such-role"]},
            **changes,
        }
        auth = await start_auth(public_url=PUBLIC_URL, oidc_providers=json.dumps([one]))
        return Relying(auth, at)

    return create
