"""Authenticators as people have them, and a time that stands until a test moves it."""

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from espalier.auth.v1 import resources_pb2, second_factor_pb2, second_factor_pb2_grpc, service_pb2
from espalier_auth.second_factor import service
from espalier_auth.second_factor.codes import STEP_SECONDS, STEPS_TOLD, code_of
from espalier_common.db import utc_now

PASSWORD = "a quiet green lamp"


class Clock:
    """The time as second factors see it."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)

    @property
    def step(self) -> int:
        return int(self.now.timestamp() // STEP_SECONDS)


class Owner:
    """Somebody with a password, and with an authenticator once he has enrolled."""

    def __init__(self, auth: Any, clock: Clock, username: str, password: str) -> None:
        self.auth, self.clock, self.username, self.password = auth, clock, username, password
        self.secret = b""
        self.recovery_codes: list[str] = []
        self.token = ""

    def code(self, *, steps: int = 0) -> str:
        """What the authenticator shows now, or showed or shows some half minutes away."""
        return code_of(self.secret, self.clock.step + steps)

    def next_code(self) -> str:
        """A code that was not shown before."""
        self.clock.advance(seconds=STEP_SECONDS)
        return self.code()

    def wrong_code(self) -> str:
        """One that is not good now and will not be soon."""
        good = {self.code(steps=steps) for steps in range(-STEPS_TOLD, 4)}
        return next(text for number in range(10) if (text := f"{number}" * 6) not in good)

    async def login(self, code: str = "") -> resources_pb2.TokenPair:
        request = service_pb2.LoginRequest(username=self.username, password=self.password, code=code)
        pair: resources_pb2.TokenPair = await self.auth.sign_in().Login(request)
        self.token = pair.access_token
        return pair

    def factor(self) -> Any:
        return second_factor_pb2_grpc.SecondFactorServiceStub(self.auth.channel(self.token))

    async def begin(self) -> second_factor_pb2.SecondFactorSecret:
        begun: second_factor_pb2.SecondFactorSecret = await self.factor().BeginMySecondFactor(
            second_factor_pb2.BeginMySecondFactorRequest()
        )
        self.secret = base64.b32decode(begun.secret)
        return begun

    async def confirm(self, code: str = "") -> None:
        request = second_factor_pb2.ConfirmMySecondFactorRequest(code=code or self.code())
        self.recovery_codes = list((await self.factor().ConfirmMySecondFactor(request)).recovery_codes)

    async def enrol(self) -> "Owner":
        await self.login()
        await self.begin()
        await self.confirm()
        return self


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(service, "utc_now", found)
    return found


@pytest.fixture
def owner_at(clock: Clock) -> Callable[..., Any]:
    """Factory: `await owner_at(auth, "mia")` gives a new user who is signed in nowhere yet."""

    async def create(auth: Any, username: str, *, roles: tuple[str, ...] = ("viewer",)) -> Owner:
        await auth.create_user(username, roles=list(roles), password=PASSWORD)
        return Owner(auth, clock, username, PASSWORD)

    return create
