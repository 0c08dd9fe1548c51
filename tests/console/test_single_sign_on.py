"""Signing in at a real identity provider, in a real browser, and the account that is there already."""

from collections.abc import Callable

import pytest
from browsing import PASSWORD, Windows, check_accessibility, heading, sign_in
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
NewUser = Callable[..., str]


async def go_through_provider(page: Page, account: str) -> None:
    """Fills in the provider's own forms, as far as it does not remember the browser."""
    await page.locator('input[name="login"]').fill(account)
    await page.locator('input[name="password"]').fill("any")
    await page.get_by_role("button", name="Sign-in").click()
    await page.get_by_role("button", name="Continue").click()


async def test_the_first_sign_in_at_a_provider_makes_an_account_without_a_password(windows: Windows) -> None:
    page = await windows.page("/profile/sessions")
    await page.get_by_role("button", name="Sign in with Corporate login").click()
    await go_through_provider(page, "grace")
    await expect(page).to_have_url(f"{windows.address}/profile/sessions")
    await expect(page.get_by_text("this one")).to_be_visible()
    await expect(page.get_by_role("link", name="Password")).not_to_be_visible()
    await page.goto("/profile/password")
    await expect(page.get_by_text("there is none here")).to_be_visible()


async def test_an_account_with_the_same_address_is_linked_by_its_owner_alone(
    windows: Windows, new_user: NewUser
) -> None:
    new_user("ada")
    page = await windows.page("/login")
    await page.get_by_role("button", name="Sign in with Corporate login").click()
    await go_through_provider(page, "ada")
    await heading(page, "The sign-in did not work")
    await expect(page.get_by_role("alert")).to_contain_text("There is already an account")
    assert "code=" not in page.url
    await check_accessibility(page)
    await page.get_by_role("link", name="Back to the sign-in").click()
    await sign_in(page, "ada", PASSWORD)
    await expect(page.get_by_text("You wanted to sign in with Corporate login.")).to_be_visible()
    await page.get_by_role("button", name="Link Corporate login").click()
    await expect(page.get_by_text("from now on you can sign in with Corporate login")).to_be_visible()
    await check_accessibility(page)

    await page.get_by_role("button", name="ada", exact=True).click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await page.get_by_role("button", name="Sign in with Corporate login").click()
    await heading(page, "Training runs")


async def test_who_does_not_know_the_account_of_his_name_gets_one_of_his_own(
    windows: Windows, new_user: NewUser
) -> None:
    new_user("olga")
    page = await windows.page("/login")
    await page.get_by_role("button", name="Sign in with Corporate login").click()
    await go_through_provider(page, "olga")
    await page.get_by_role("button", name="That account is not mine").click()
    await heading(page, "Training runs")
    await page.goto("/profile")
    await expect(page.get_by_text("olga-2 ·")).to_be_visible()


async def test_what_the_provider_refuses_is_told_in_its_words(windows: Windows) -> None:
    page = await windows.page("/login")
    await page.get_by_role("button", name="Sign in with Corporate login").click()
    await page.get_by_role("link", name="Cancel").click()
    await heading(page, "The sign-in did not work")
    await expect(page.get_by_role("alert")).to_contain_text("access_denied")
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("begin it again")
