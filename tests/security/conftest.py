"""Two users who have one object of each kind, one who only looks, and somebody who knows the platform's key."""

from collections.abc import Iterator

import pytest
from belongings import Belongings, conversed, everything_of, trained
from forgery import Forger, forger_of
from people import token_of, user
from platform_process import Api, Platform
from wire import Wire


@pytest.fixture(scope="session")
def wire(platform: Platform) -> Iterator[Wire]:
    wire = Wire(platform)
    yield wire
    wire.close()


@pytest.fixture(scope="session")
def owners(platform: Platform) -> tuple[Belongings, Belongings]:
    """Anna and Bert: both trainers, each with everything."""
    anna, bert = (everything_of(user(platform, name, "trainer"), mark=name) for name in ("anna", "bert"))
    for owner, mark in ((anna, "anna"), (bert, "bert")):
        trained(owner, mark=mark)
    for owner in (anna, bert):
        conversed(owner, deployment_id=anna.ids["deployment"], text="Hello.")
    return anna, bert


@pytest.fixture(scope="session")
def viewer(platform: Platform) -> Api:
    return user(platform, "vigo", "viewer")


@pytest.fixture(scope="session")
def forger(platform: Platform) -> Forger:
    """Knows the signing key of the running platform, which no attacker does."""
    return forger_of(platform, token_of(platform.admin()))
