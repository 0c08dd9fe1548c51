"""The one platform that the end-to-end and the security tests share, and the data that they train on."""

from collections.abc import Iterator

import pytest
from platform_process import Api, Platform


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    platform = Platform()
    try:
        platform.up()
        yield platform
    finally:
        platform.destroy()


@pytest.fixture(scope="session")
def admin(platform: Platform) -> Api:
    return platform.admin()


@pytest.fixture(scope="session")
def trainer(platform: Platform, admin: Api) -> Api:
    """A user with the role "trainer"."""
    admin.call(
        "POST",
        "/api/v1/users",
        {"user": {"username": "tara", "roles": ["trainer"]}, "password": "a trainer's password"},
    )
    return platform.login("tara", "a trainer's password")


@pytest.fixture(scope="session")
def corpus(trainer: Api) -> str:
    """A dataset version of plain text."""
    rows = [{"text": f"{n} and {n + 1} make {2 * n + 1}; twice {n} is {2 * n}."} for n in range(400)]
    version = trainer.dataset("sums", train=rows[:360], validation=rows[360:])
    assert version["state"] == "DATASET_VERSION_STATE_READY", version["message"]
    return str(version["id"])


@pytest.fixture(scope="session")
def questions(trainer: Api) -> str:
    """A dataset version of questions and answers."""
    rows = [
        {"instruction": f"What do {n} and {n + 1} make?", "input": "", "output": f"{2 * n + 1}."} for n in range(200)
    ]
    version = trainer.dataset("questions", train=rows[:180], validation=rows[180:])
    assert version["state"] == "DATASET_VERSION_STATE_READY", version["message"]
    return str(version["id"])
