"""Administrators in a browser: signed in by the API, which takes a tenth of the time that the form takes."""

import asyncio

from browsing import PATIENCE, ConsolePlatform, Windows, make_user
from platform_process import Api
from playwright.async_api import Locator, Page, expect

BOSS = "boss"


class Administration:
    """Opens pages of the console for users whom it makes."""

    def __init__(self, windows: Windows, platform: ConsolePlatform, api: Api) -> None:
        self._windows = windows
        self._platform = platform
        self.api = api

    async def open(self, path: str, *, username: str = BOSS, roles: tuple[str, ...] = ("admin",)) -> Page:
        """A page in a new window, as a user with these roles; made when he is not there yet."""
        found = self.api.get("/api/v1/users", query=username)["users"]
        if username not in [user["username"] for user in found]:
            make_user(self._platform, self.api, username, roles=roles)
        return await self._windows.signed_in(username, path)

    async def wait_for_event(self, **wanted: str) -> None:
        """Until the audit log has such an event: they come over the bus."""
        async with asyncio.timeout(PATIENCE / 1_000):
            while not self.api.get("/api/v1/audit-events", **wanted)["events"]:
                await asyncio.sleep(0.2)

    def user(self, username: str, *roles: str) -> str:
        """A user who has not signed in yet; gives his id."""
        body = {"user": {"username": username, "roles": list(roles)}, "password": "a password by the admin"}
        return str(self.api.call("POST", "/api/v1/users", body)["id"])


def row(page: Page, table: str, text: str) -> Locator:
    """The row of a table that has this text."""
    return page.get_by_role("table", name=table).get_by_role("row").filter(has_text=text)


def dialog(page: Page, title: str) -> Locator:
    """The dialog of this title."""
    return page.get_by_role("dialog", name=title)


async def choose(page: Page, field: Locator, option: str) -> None:
    """Chooses an option of a list that opens; one of several stays open until the field is left."""
    await field.press("ArrowDown")
    await page.get_by_role("option", name=option, exact=True).click()
    await page.keyboard.press("Tab")


async def submit(box: Locator, button: str) -> None:
    """Presses the button of a dialog, which closes once it is done."""
    await box.get_by_role("button", name=button, exact=True).click()
    await expect(box).to_be_hidden()
