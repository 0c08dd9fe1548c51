"""Every page and dialog of administration under axe."""

import pytest
from administration import Administration, dialog
from browsing import ConsolePlatform, Windows, check_accessibility, heading
from platform_process import Api
from playwright.async_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

# The dialogs of each page, by the button that opens them.
PAGES: dict[str, dict[str, str]] = {
    "Users": {"New user": "New user", "Import CSV": "Import users from CSV"},
    "Groups": {"New group": "New group"},
    "Roles": {"New role": "New role"},
    "Invitations": {"Invite": "Invite somebody"},
    "Usage": {},
    "Limits": {"New limit": "New limit"},
    "Audit log": {},
    "Settings": {},
    "Announcements": {"New announcement": "New announcement"},
}


@pytest.fixture
def administration(windows: Windows, platform: ConsolePlatform, admin: Api) -> Administration:
    return Administration(windows, platform, admin)


async def test_every_page_and_its_dialogs_are_for_everybody(administration: Administration) -> None:
    page = await administration.open("/admin/users")
    for name, dialogs in PAGES.items():
        await page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()
        await heading(page, name)
        await check_accessibility(page)
        for button, title in dialogs.items():
            await page.get_by_role("button", name=button, exact=True).click()
            await expect(dialog(page, title)).to_be_visible()
            await check_accessibility(page, within='[role="dialog"]')
            await page.keyboard.press("Escape")
            await expect(dialog(page, title)).to_be_hidden()


async def test_a_user_and_an_open_event_are_for_everybody(administration: Administration) -> None:
    user_id = administration.user("wanda", "viewer")
    await administration.wait_for_event(target=f"users/{user_id}")
    page = await administration.open(f"/admin/users/{user_id}")
    await check_accessibility(page)
    await page.goto(f"/admin/audit?target=users/{user_id}")
    opener = page.get_by_role("button", name="Details of Create user")
    await opener.click()
    await expect(opener).to_have_attribute("aria-expanded", "true")
    await check_accessibility(page)
