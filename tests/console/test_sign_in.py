"""The ways into the console, as a person goes them."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from browsing import PASSWORD, ConsolePlatform, Windows, check_accessibility, fill_in, heading, sign_in
from platform_process import Api
from playwright.async_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
NewUser = Callable[..., str]

GUESSES = 20  # wrong passwords: fewer than those from an address that are followed by a wait, twice as many are more


async def test_the_page_that_was_asked_for_comes_after_the_sign_in(windows: Windows, new_user: NewUser) -> None:
    new_user("ines")
    page = await windows.page("/profile/sessions?sorted=yes")
    await heading(page, "Sign in")
    await sign_in(page, "ines")
    await expect(page).to_have_url(f"{windows.address}/profile/sessions?sorted=yes")
    await expect(page).to_have_title("Sessions · Espalier")

    await page.get_by_role("button", name="ines", exact=True).click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await heading(page, "Sign in")
    await page.goto("/profile")
    await heading(page, "Sign in")


async def test_a_browser_keeps_a_session_over_its_end_only_where_that_is_ticked(
    windows: Windows, new_user: NewUser
) -> None:
    new_user("ilse")
    context = await windows.open()
    page = await context.new_page()
    ending = ("espalier_access", "espalier_refresh", "espalier_csrf")

    async def ends() -> set[bool]:
        return {each["expires"] == -1 for each in await context.cookies() if each["name"] in ending}

    await page.goto("/login")
    await sign_in(page, "ilse")
    assert await ends() == {True}
    # Not even a renewal gives it a time.
    await context.clear_cookies(name="espalier_access")
    await page.goto("/profile")
    await heading(page, "Your account")
    assert await ends() == {True}

    await page.get_by_role("button", name="ilse", exact=True).click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await page.get_by_label("Stay signed in on this device").check()
    await sign_in(page, "ilse")
    assert await ends() == {False}
    await page.get_by_role("button", name="ilse", exact=True).click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_label("Stay signed in on this device")).to_be_checked()


async def test_no_page_of_another_site_comes_after_the_sign_in(windows: Windows, new_user: NewUser) -> None:
    new_user("iris")
    page = await windows.page("/login?next=//evil.example.org/")
    await sign_in(page, "iris")
    await expect(page).to_have_url(f"{windows.address}/runs")


async def test_a_wrong_password_and_an_unknown_name_read_alike(windows: Windows, new_user: NewUser) -> None:
    new_user("jan")
    page = await windows.page("/login")
    told = []
    for username in ("jan", "nobody-of-that-name"):
        await fill_in(page, username=username, password="not the password")
        await page.get_by_role("button", name="Sign in", exact=True).click()
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text("Username or password is wrong.")
        told.append(await alert.locator("strong").inner_text())
        await page.reload()
    assert told[0] == told[1]
    await fill_in(page, password="can be looked at")
    field = page.get_by_label("Password", exact=True)
    await page.get_by_role("button", name="Show: Password").click()
    await expect(field).to_have_attribute("type", "text")
    await page.get_by_role("button", name="Hide: Password").click()
    await expect(field).to_have_attribute("type", "password")


async def test_who_tried_too_often_is_told_how_long_to_wait(windows: Windows, platform: ConsolePlatform) -> None:
    context = await windows.open()
    address = "198.51.100.7"
    await context.set_extra_http_headers({"x-forwarded-for": address})
    async with httpx.AsyncClient(base_url=platform.url, headers={"x-forwarded-for": address}, timeout=60) as guesser:
        bodies = [{"username": f"guess{number}", "password": "not the password"} for number in range(GUESSES)]
        # One after another: a slow machine refuses some of twenty at once, for more wait than it checks in seconds.
        answers = [await guesser.post("/api/v1/auth/login", json=body) for body in bodies]
        assert {answer.status_code for answer in answers} == {401}
    platform.let_guesses_be_twice_as_many(GUESSES)
    page = await context.new_page()
    await page.goto("/login")
    await fill_in(page, username="guess", password="not the password")
    button = page.get_by_role("button", name="Sign in", exact=True)
    await button.click()
    await expect(page.get_by_role("alert")).to_contain_text("You can try again in")
    await expect(button).to_be_disabled()


async def test_the_first_password_has_to_be_changed(windows: Windows, admin: Api) -> None:
    first = "given by the admin"
    admin.call("POST", "/api/v1/users", {"user": {"username": "kai", "roles": ["trainer"]}, "password": first})
    page = await windows.page("/profile/usage")
    await sign_in(page, "kai", first)
    await heading(page, "Choose a password")
    await page.goto("/runs")
    await heading(page, "Choose a password")
    await check_accessibility(page)
    await fill_in(page, current_password=first, new_password="kai")
    await expect(page.get_by_role("button", name="Change password")).to_be_disabled()
    await fill_in(page, new_password=PASSWORD)
    await page.get_by_role("button", name="Change password").click()
    await heading(page, "Training runs")


@pytest.fixture
def by_invitation(admin: Api) -> Any:
    def choose(mode: str) -> None:
        body = {"name": "auth.registration", "value": mode}
        admin.call("PATCH", "/api/v1/settings/auth.registration", body)

    choose("invitation")
    yield choose
    admin.call("POST", "/api/v1/settings/auth.registration:reset", {})


async def test_an_invited_person_registers_and_is_in(windows: Windows, admin: Api, by_invitation: Any) -> None:
    page = await windows.page("/register")
    await expect(page.get_by_text("Registering here needs an invitation.")).to_be_visible()
    link = admin.call("POST", "/api/v1/invitations", {"email": "lena@example.org", "roles": ["trainer"]})["url"]
    assert link.startswith(f"{windows.address}/register#invitation=")
    await page.goto(link)
    await fill_in(page, username="lena", password="password1234")
    await page.get_by_role("button", name="Register").click()
    await expect(page.get_by_role("alert")).to_contain_text("Password")
    await check_accessibility(page)
    await fill_in(page, password=PASSWORD)
    await page.get_by_role("button", name="Register").click()
    await heading(page, "Training runs")
    await page.goto("/profile")
    await expect(page.locator('input[name="email"]')).to_have_value("lena@example.org")

    other = await windows.page(link)
    await fill_in(other, username="second", password=PASSWORD)
    await other.get_by_role("button", name="Register").click()
    await expect(other.get_by_role("alert")).to_contain_text("The invitation is not valid")


async def test_registration_tells_whether_it_is_open(windows: Windows, by_invitation: Any) -> None:
    by_invitation("closed")
    page = await windows.page("/register")
    await expect(page.get_by_text("Nobody can register here.")).to_be_visible()
    by_invitation("open")
    page = await windows.page("/login")
    await page.get_by_role("link", name="Register").click()
    await heading(page, "Register")
    await fill_in(page, username="mona", password=PASSWORD)
    await page.get_by_role("button", name="Register").click()
    await expect(page.get_by_role("button", name="mona")).to_be_visible()


async def test_a_link_sets_a_forgotten_password_once(windows: Windows, admin: Api, new_user: NewUser) -> None:
    user_id = new_user("nils")
    page = await windows.page("/login")
    await page.get_by_role("link", name="Forgotten your password?").click()
    await expect(page.get_by_text("This platform sends no mail.")).to_be_visible()
    link = admin.call("POST", f"/api/v1/users/{user_id}:resetPassword", {})["url"]
    await page.goto(link)
    await check_accessibility(page)
    await fill_in(page, new_password="an orange bicycle")
    await page.get_by_role("button", name="Set the password").click()
    await expect(page.get_by_text("Your password is changed")).to_be_visible()
    await sign_in(page, "nils", "an orange bicycle")
    await heading(page, "Training runs")

    used = await windows.page(link)
    await fill_in(used, new_password="a purple bicycle")
    await used.get_by_role("button", name="Set the password").click()
    await expect(used.get_by_role("alert")).to_contain_text("The link is not valid")
