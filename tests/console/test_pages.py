"""What holds for every page: it can be used by everybody, in both themes, and is quick to arrive."""

import gzip
import re
from collections.abc import Callable

import pytest
from browsing import Windows, begin_session, check_accessibility, heading
from playwright.async_api import Page, Response, expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
NewUser = Callable[..., str]

SIGNED_OUT = ["/login", "/register", "/forgot-password", "/reset-password", "/login/callback"]
SIGNED_IN = ["/runs", "/no-such-page", "/admin/users", "/profile"]
TABS = ["Password", "Second factor", "Sessions", "API keys", "Usage"]


async def check_both_themes(page: Page) -> None:
    """All that a theme changes is colours."""
    await check_accessibility(page)
    await page.emulate_media(color_scheme="dark")
    await check_accessibility(page, only="color-contrast")
    await page.emulate_media(color_scheme="light")


async def test_pages_have_no_grave_barrier_in_either_theme(windows: Windows, new_user: NewUser) -> None:
    new_user("xenia")
    page = await windows.page("/login", color_scheme="light")
    light = await ground(page)
    await page.emulate_media(color_scheme="dark")
    assert await ground(page) != light
    await page.emulate_media(color_scheme="light")
    for path in SIGNED_OUT:
        await page.goto(path)
        await check_both_themes(page)
    await begin_session(page.context, "xenia")
    for path in SIGNED_IN:
        await page.goto(path)
        await check_both_themes(page)
    for name in TABS:
        await page.get_by_role("main").get_by_role("link", name=name, exact=True).click()
        await expect(page).to_have_title(re.compile(f"^{name} · "))
        await check_both_themes(page)


async def ground(page: Page) -> str:
    """The colour behind everything."""
    return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))


async def test_what_one_may_not_do_is_not_linked_and_says_what_it_needs(windows: Windows, new_user: NewUser) -> None:
    new_user("yara", roles=("viewer",))
    page = await windows.signed_in("yara", "/admin/users")
    await expect(page.get_by_text("auth.users.list")).to_be_visible()
    navigation = page.get_by_role("navigation", name="Pages")
    await expect(navigation.get_by_role("link", name="Training runs")).to_be_visible()
    await expect(navigation.get_by_role("link", name="Users")).not_to_be_visible()
    await page.goto("/no-such-page")
    await heading(page, "Page not found")


async def test_the_first_page_needs_little(windows: Windows) -> None:
    context = await windows.open()
    page = await context.new_page()
    scripts: list[Response] = []
    page.on("response", lambda answer: scripts.append(answer) if answer.url.endswith(".js") else None)
    await page.goto("/login")
    await page.wait_for_load_state("networkidle")
    bytes_sent = sum([len(gzip.compress(await script.body())) for script in scripts])
    assert 0 < bytes_sent <= 250 * 1024


async def test_the_keyboard_alone_is_enough(windows: Windows, new_user: NewUser) -> None:
    new_user("zoe")
    page = await windows.page("/runs")
    await heading(page, "Sign in")
    await expect(page.locator('input[name="username"]')).to_be_focused()
    await page.keyboard.type("zoe")
    await page.keyboard.press("Tab")
    await page.keyboard.type("a quiet green lamp")
    await page.keyboard.press("Enter")
    await heading(page, "Training runs")
    await page.reload()
    await heading(page, "Training runs")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#content")).to_be_focused()


async def test_a_narrow_window_folds_the_navigation_away(windows: Windows, new_user: NewUser) -> None:
    new_user("zeno")
    page = await windows.signed_in("zeno", "/runs")
    await page.set_viewport_size({"width": 390, "height": 800})
    navigation = page.get_by_role("navigation", name="Pages")
    await expect(navigation).not_to_be_visible()
    await page.get_by_role("button", name="Navigation").click()
    await expect(navigation).to_be_visible()
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
