"""Every page and dialog of administration under axe."""

import pytest
from administration import Administration, dialog
from browsing import ConsolePlatform, Windows, check_accessibility
from platform_process import Api
from playwright.async_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

DIALOGS = {
    "/admin/users": {"New user": "New user", "Import CSV": "Import users from CSV"},
    "/admin/groups": {"New group": "New group"},
    "/admin/roles": {"New role": "New role"},
    "/admin/invitations": {"Invite": "Invite somebody"},
    "/admin/usage": {},
    "/admin/quotas": {"New limit": "New limit"},
    "/admin/audit": {},
    "/admin/settings": {},
    "/admin/announcements": {"New announcement": "New announcement"},
}


@pytest.fixture
def administration(windows: Windows, platform: ConsolePlatform, admin: Api) -> Administration:
    return Administration(windows, platform, admin)


@pytest.mark.parametrize("path", DIALOGS)
async def test_a_page_and_its_dialogs_are_for_everybody(administration: Administration, path: str) -> None:
    page = await administration.open(path)
    await check_accessibility(page)
    for button, title in DIALOGS[path].items():
        await page.get_by_role("button", name=button).click()
        await expect(dialog(page, title)).to_be_visible()
        await check_accessibility(page)
        await page.keyboard.press("Escape")
        await expect(dialog(page, title)).to_be_hidden()


async def test_a_user_and_an_open_event_are_for_everybody(administration: Administration) -> None:
    user_id = administration.user("wanda", "viewer")
    administration.wait_for_event(target=f"users/{user_id}")
    page = await administration.open(f"/admin/users/{user_id}")
    await check_accessibility(page)
    await page.goto(f"/admin/audit?target=users/{user_id}")
    await page.get_by_role("button", name="Details of Create user").click()
    await check_accessibility(page)
