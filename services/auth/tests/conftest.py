"""The real service of auth in the test's own process: real PostgreSQL, real gRPC, real tokens."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from espalier.auth.v1 import resources_pb2, service_pb2, service_pb2_grpc
from espalier_auth.assembly import build
from espalier_auth.settings import AuthSettings
from espalier_common.db import Database
from espalier_common.identity import TokenVerifier
from espalier_common.public_keys import fetch_jwks
from espalier_common.rpc.server import RunningService, start
from espalier_common.testing.plugin import MigratedDatabase

from .auth_process import AuthProcess
from .certificates import Certificate, write_certificate

ADMIN_PASSWORD = "correct horse battery"


@dataclass
class Auth:
    """A running auth service, and the calls that tests make most."""

    running: RunningService
    settings: AuthSettings
    database: Database
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.running.port}"

    def channel(self, token: str = "") -> grpc.aio.Channel:
        interceptors: list[Any] = [_Bearer(token)] if token else []
        channel = grpc.aio.insecure_channel(self.address, interceptors=interceptors)
        self._channels.append(channel)
        return channel

    def sign_in(self) -> Any:
        return service_pb2_grpc.AuthServiceStub(self.channel())

    def users(self, token: str) -> Any:
        return service_pb2_grpc.UserServiceStub(self.channel(token))

    async def login(self, username: str = "admin", password: str = ADMIN_PASSWORD) -> resources_pb2.TokenPair:
        request = service_pb2.LoginRequest(username=username, password=password)
        pair: resources_pb2.TokenPair = await self.sign_in().Login(request)
        return pair

    async def admin(self) -> Any:
        return self.users((await self.login()).access_token)

    async def create_user(
        self, username: str, *, roles: list[str], password: str = "a quiet green lamp"
    ) -> resources_pb2.User:
        user = resources_pb2.User(username=username, roles=roles)
        request = service_pb2.CreateUserRequest(user=user, password=password)
        created: resources_pb2.User = await (await self.admin()).CreateUser(request)
        return created

    def verifier(self) -> TokenVerifier:
        """As another service has it: keys over gRPC. Blocks, so call it in a thread."""
        return TokenVerifier(fetch_jwks(self.address))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self.running.stop(grace=0)


class _Bearer(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(("authorization", f"Bearer {self._token}"))
        details = grpc.aio.ClientCallDetails(
            method=client_call_details.method,
            timeout=client_call_details.timeout,
            metadata=metadata,
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


@pytest.fixture
def make_certificate(tmp_path: Path) -> Callable[[str], Certificate]:
    """Factory by the address that it is for."""
    return partial(write_certificate, tmp_path)


@pytest.fixture
def auth_process() -> type[AuthProcess]:
    """A real process of auth, made as `AuthProcess` says."""
    return AuthProcess


AuthFactory = Callable[..., Awaitable[Auth]]


@pytest.fixture
def auth_settings(migrated_database: MigratedDatabase, tmp_path: Path) -> Callable[..., AuthSettings]:
    """Factory of settings over one fresh database."""
    url = migrated_database("espalier_auth").engine.url.render_as_string(hide_password=False)
    master_key = secrets.token_hex(32)

    def create(**changes: Any) -> AuthSettings:
        values: dict[str, Any] = {
            "database_url": url,
            "nats_url": "nats://127.0.0.1:1",
            "master_key": master_key,
            "home": tmp_path,
            "admin_password": ADMIN_PASSWORD,
        }
        return AuthSettings(**(values | changes))

    return create


@pytest.fixture
async def start_auth(auth_settings: Callable[..., AuthSettings]) -> AsyncIterator[AuthFactory]:
    """Factory: `await start_auth(admin_password=…)` gives a running service; stopped after the test."""
    started: list[Auth] = []

    async def create(**changes: Any) -> Auth:
        settings = auth_settings(**changes)
        service = build(settings)
        for prepare in service.on_start:
            prepare()
        assert service.database is not None
        auth = Auth(await start(service), settings, service.database)
        started.append(auth)
        return auth

    yield create
    for auth in started:
        await auth.close()


@pytest.fixture
async def auth(start_auth: AuthFactory) -> Auth:
    """A running auth service with the user `admin`."""
    return await start_auth()
