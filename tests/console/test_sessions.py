"""A session over many tabs: renewed by all of them together, ended elsewhere, and begun again over a page."""

import asyncio
import re
from collections.abc import Callable

import pytest
from browsing import (
    PASSWORD,
    PATIENCE,
    ConsolePlatform,
    Windows,
    begin_session,
    check_accessibility,
    fill_in,
    heading,
    sign_in,
)
from platform_process import Api
from playwright.async_api import BrowserContext, Page, Response, expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
NewUser = Callable[..., str]

TABS = 10
ROUNDS = 3


async def let_access_expire(context: BrowserContext) -> None:
    """What the browser itself does after ten minutes, when the cookie's time is over; the tokens stay valid."""
    await context.clear_cookies(name="espalier_access")


async def test_ten_tabs_of_one_browser_renew_together_and_nobody_is_signed_out(
    windows: Windows, admin: Api, new_user: NewUser
) -> None:
    user_id = new_user("olympe")
    context = await windows.open()
    # Ten pages at once take ten times as long as one where processors are few.
    context.set_default_timeout(TABS * PATIENCE)
    await begin_session(context, "olympe")
    tabs = [await context.new_page() for _ in range(TABS)]
    await asyncio.gather(*(tab.goto("/profile/sessions") for tab in tabs))
    refreshes: list[int] = []
    context.on(
        "response",
        lambda answer: refreshes.append(answer.status) if answer.url.endswith("/api/v1/auth/refresh") else None,
    )
    for _ in range(ROUNDS):
        await let_access_expire(context)
        statuses = await asyncio.gather(*(asked_in(tab) for tab in tabs))
        assert statuses == [200] * TABS
    # Reloading starts each tab anew, in the middle of what others do.
    await let_access_expire(context)
    await asyncio.gather(*(tab.reload() for tab in tabs))
    loaded = (expect(tab.get_by_text("this one")).to_be_attached(timeout=TABS * PATIENCE) for tab in tabs)
    await asyncio.gather(*loaded)
    # One for each time, or two where a call was under way while the cookie went; never one for each tab.
    assert set(refreshes) == {200}
    assert ROUNDS < len(refreshes) <= 2 * (ROUNDS + 1)
    events = admin.get("/api/v1/audit-events", actor=user_id)["events"]
    assert not [event for event in events if "REUSED" in event["reason"]]


async def test_over_plain_http_where_browsers_have_no_locks_a_session_is_renewed_too(
    windows: Windows, new_user: NewUser
) -> None:
    new_user("ottilie")
    context = await windows.open()
    await context.add_init_script("delete Navigator.prototype.locks; delete Navigator.prototype.clipboard")
    page = await context.new_page()
    await page.goto("/profile/sessions")
    await sign_in(page, "ottilie")
    assert not await page.evaluate("'locks' in navigator || 'clipboard' in navigator")
    await let_access_expire(context)
    assert await asked_in(page) == 200
    await expect(page.get_by_text("this one")).to_be_attached()


async def asked_in(tab: Page) -> int:
    """The status of the answer that the page gets in the end when it asks again."""
    async with tab.expect_response(is_final) as answer:
        for title in ("Password", "Sessions"):
            await follow(tab, title)
            await tab.wait_for_function("title => document.title.startsWith(title)", arg=title)
    return (await answer.value).status


async def follow(tab: Page, link: str) -> None:
    """Follows a link, and not with the mouse: a browser does not draw the tabs behind."""
    await tab.get_by_role("link", name=link, exact=True).dispatch_event("click")


def is_final(answer: Response) -> bool:
    return answer.url.endswith("/api/v1/me/sessions") and answer.status != 401


async def test_a_session_that_ends_under_a_form_is_begun_again_over_it(windows: Windows, new_user: NewUser) -> None:
    new_user("pablo")
    page = await windows.signed_in("pablo", "/profile")
    await page.locator('input[name="name"]').fill("Pablo of the long form")
    elsewhere = await windows.signed_in("pablo", "/profile/sessions")
    await elsewhere.get_by_role("button", name="Sign out all others").click()
    await elsewhere.get_by_role("button", name="Sign out the others", exact=True).click()
    await expect(elsewhere.get_by_role("row")).to_have_count(2)

    dialog = page.get_by_role("dialog", name="Your session has ended")
    # What is revoked is over within five seconds, on every service; then the next call meets it.
    user = page.context.request
    async with asyncio.timeout(PATIENCE / 1_000):
        while (await user.get("/api/v1/me")).ok:
            await asyncio.sleep(0.2)
    # Not with the mouse: what the page asks by itself may have met the end before, and the dialog be there already.
    await page.get_by_role("button", name="Save", include_hidden=True).dispatch_event("click")
    await expect(dialog).to_be_visible()
    await check_accessibility(page)
    await fill_in(page, again="not the password")
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Username or password is wrong.")
    await fill_in(page, again=PASSWORD)
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(dialog).not_to_be_visible()
    # The call that met the end of the session went on by itself.
    await expect(page.get_by_text("Saved.")).to_be_visible()
    assert await page.locator('input[name="name"]').input_value() == "Pablo of the long form"


async def test_what_takes_a_recent_sign_in_asks_for_one_and_goes_on(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("quentin")
    page = await windows.signed_in("quentin", "/profile")
    platform.let_sign_ins_age(user_id)
    await fill_in(page, email="quentin@example.org")
    await page.get_by_role("button", name="Save").click()
    dialog = page.get_by_role("dialog", name="Is it you?")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("alert")).to_contain_text("Sign in again to change your e-mail address")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator('input[name="again"]')).to_be_focused()
    await fill_in(page, again=PASSWORD)
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()


async def test_a_sign_in_in_one_tab_lets_the_others_go_on(windows: Windows, new_user: NewUser) -> None:
    new_user("rosalie")
    context = await windows.open()
    await begin_session(context, "rosalie")
    page, other = await context.new_page(), await context.new_page()
    await page.goto("/profile")
    await heading(page, "Your account")
    await other.goto("/profile")
    await heading(other, "Your account")
    await let_access_expire(context)
    await context.clear_cookies(name="espalier_refresh")
    for tab in (page, other):
        await follow(tab, "Sessions")
        await expect(tab.get_by_role("dialog", name="Your session has ended")).to_be_visible()
    await page.bring_to_front()
    await fill_in(page, again=PASSWORD)
    await page.get_by_role("dialog").get_by_role("button", name="Sign in", exact=True).click()
    for tab in (page, other):
        await expect(tab.get_by_text("this one")).to_be_attached()

    await page.get_by_role("button", name="rosalie", exact=True).click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await heading(other, "Sign in")


async def test_one_of_the_own_sessions_is_ended(windows: Windows, platform: ConsolePlatform, new_user: NewUser) -> None:
    new_user("svante")
    program = platform.login("svante", PASSWORD)
    page = await windows.signed_in("svante", "/profile/sessions")
    row = page.get_by_role("row").filter(has_text="Python")
    await expect(row.first).to_contain_text("127.0.0.1")
    await expect(page.get_by_role("row").filter(has_text="this one")).to_contain_text("203.0.113.")
    await check_accessibility(page)
    while await row.count():
        before = await row.count()
        await row.first.get_by_role("button").click()
        await expect(row).to_have_count(before - 1)
    refused = program.http.post("/api/v1/auth/refresh", json={"refresh_token": program.refresh_token})
    assert refused.status_code == 401


async def test_whose_session_ends_soon_is_told_and_begins_another_under_what_he_types(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("tilda")
    page = await windows.signed_in("tilda", "/profile")
    name = page.locator('input[name="name"]')
    await expect(name).to_be_visible()
    notice = page.get_by_role("complementary", name="Your session")
    await expect(notice).to_be_hidden()
    platform.let_sessions_end_soon(user_id)
    await page.reload()
    await name.fill("Tilda of the long form")
    await expect(notice).to_contain_text("Your session ends in 3 hours")
    await check_accessibility(page)
    await notice.get_by_role("button", name="Sign in again").click()
    dialog = page.get_by_role("dialog", name="Sign in again")
    await fill_in(page, again=PASSWORD)
    await dialog.get_by_role("button", name="Sign in", exact=True).click()
    await expect(dialog).to_be_hidden()
    await expect(notice).to_be_hidden()
    await expect(name).to_have_value("Tilda of the long form")


async def test_who_uses_no_tab_for_long_is_told_in_all_of_them_and_stays_with_one_click(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("ulrike")
    context = await windows.open()
    await begin_session(context, "ulrike")
    page, other = await context.new_page(), await context.new_page()
    await page.goto("/profile")
    await heading(page, "Your account")
    platform.let_sessions_lie_unused(user_id)
    renewals: list[int] = []
    context.on(
        "response",
        lambda answer: renewals.append(answer.status) if answer.url.endswith("/api/v1/auth/refresh") else None,
    )
    await page.reload()
    await other.goto("/profile/sessions")
    for tab in (page, other):
        notice = tab.get_by_role("complementary", name="Your session")
        await expect(notice).to_contain_text("Nobody has used your session for a while: it ends in 3 hours")
        await expect(tab).to_have_title(re.compile("^Session ends soon · "))
    await check_accessibility(other)
    await page.bring_to_front()
    await page.get_by_role("button", name="Stay signed in").press("Enter")
    for tab in (page, other):
        await expect(tab.get_by_role("complementary", name="Your session")).to_be_hidden()
        await expect(tab).to_have_title(re.compile("^(Profile|Sessions) · "))
    # Tabs share one session, and so one renewal puts off its end for all; what is told then is what the platform knows.
    assert renewals == [200]
    await other.reload()
    await expect(other.get_by_text("this one")).to_be_attached()
    await expect(other.get_by_role("complementary", name="Your session")).to_be_hidden()
