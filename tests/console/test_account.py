"""One's own account: profile, API keys, limits, and what everybody is told."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from browsing import PASSWORD, ConsolePlatform, Windows, check_accessibility, fill_in, heading
from platform_process import Api
from playwright.async_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
NewUser = Callable[..., str]


async def test_an_api_key_is_shown_once_and_does_what_was_ticked(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    new_user("tom")
    page = await windows.signed_in("tom", "/profile/api-keys")
    await expect(page.get_by_text("You have no key yet.")).to_be_visible()
    await page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New API key")
    await fill_in(page, key_name="nightly")
    await dialog.get_by_label("It expires after").select_option("30 days")
    await dialog.get_by_label("only what is ticked").check()
    await expect(dialog.get_by_role("button", name="Create")).to_be_disabled()
    await dialog.get_by_label("Search permissions").fill("training.runs.list")
    await dialog.get_by_role("checkbox", name="list").last.check()
    await check_accessibility(page)
    await dialog.get_by_role("button", name="Create").click()
    key = await dialog.get_by_label("API key", exact=True).input_value()
    assert key.startswith("esp_")
    await check_accessibility(page)
    await dialog.get_by_role("button", name="Done").click()

    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": f"Bearer {key}"}) as program:
        assert (await program.get("/api/v1/training/runs")).status_code == 200
        assert (await program.get("/api/v1/training/datasets")).status_code == 403
        await page.reload()
        row = page.get_by_role("row").filter(has_text="nightly")
        await expect(row).to_contain_text(f"esp_…{key[-4:]}")
        await expect(row).to_contain_text("training.runs.list")
        assert key not in await page.content()
        await row.get_by_role("button", name="Delete").click()
        await page.get_by_role("button", name="Delete", exact=True).click()
        await expect(page.get_by_text("You have no key yet.")).to_be_visible()


async def test_the_profile_is_changed_and_a_wrong_field_is_named(windows: Windows, new_user: NewUser) -> None:
    new_user("uta")
    page = await windows.signed_in("uta", "/profile")
    await fill_in(page, name="U" * 201)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("Name ")
    await fill_in(page, name="Uta the Trainer", email="uta@example.org")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    await expect(page.get_by_role("button", name="Uta the Trainer")).to_be_visible()
    await check_accessibility(page)


async def test_what_an_administrator_changed_under_the_own_form_is_not_undone(
    windows: Windows, admin: Api, new_user: NewUser
) -> None:
    user_id = new_user("undine")
    page = await windows.signed_in("undine", "/profile")
    await fill_in(page, name="Undine as she types it")
    body = {"username": "undine", "display_name": "Undine by the administrator"}
    admin.call("PATCH", f"/api/v1/users/{user_id}", body, update_mask="display_name")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").get_by_role("button", name="Load it again").click()
    await expect(page.locator('input[name="name"]')).to_have_value("Undine by the administrator")
    await fill_in(page, name="Undine after all")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()


async def test_a_changed_password_ends_the_others_and_not_this_one(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    new_user("vera")
    program = platform.login("vera", PASSWORD)
    page = await windows.signed_in("vera", "/profile/password")
    await fill_in(page, current_password=PASSWORD, new_password="an orange bicycle")
    await page.get_by_role("button", name="Change password").click()
    await expect(page.get_by_text("Your password is changed.")).to_be_visible()
    await page.get_by_role("link", name="Sessions").click()
    await expect(page.get_by_text("this one")).to_be_visible()
    refused = program.http.post("/api/v1/auth/refresh", json={"refresh_token": program.refresh_token})
    assert refused.status_code == 401


async def test_who_nears_a_limit_is_warned_on_every_page(windows: Windows, admin: Api, new_user: NewUser) -> None:
    user_id = new_user("wim")
    page = await windows.signed_in("wim", "/profile/usage")
    await expect(page.get_by_text("Nothing limits what you use.")).to_be_visible()
    limit = {"user_id": user_id, "kind": "USAGE_KIND_CONCURRENT_RUNS", "amount": 0}
    admin.call("POST", "/api/v1/quotas", limit)
    await page.goto("/runs")
    warning = page.get_by_role("link", name="Runs at the same time")
    await expect(warning).to_contain_text("100 %")
    await warning.click()
    await heading(page, "Your account")
    await expect(page.get_by_text("0 of 0")).to_be_visible()
    await check_accessibility(page)


async def test_everybody_is_told_what_is_announced_also_before_the_sign_in(windows: Windows, admin: Api) -> None:
    end = (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds").replace("+00:00", "Z")
    text = "Tonight the platform is moved to new disks."
    body = {"text": text, "kind": "BANNER_KIND_MAINTENANCE", "end_time": end}
    banner = admin.call("POST", "/api/v1/banners", body)
    page = await windows.page("/login")
    told = page.get_by_role("complementary", name="Announcements").get_by_text(text)
    await expect(told).to_contain_text("Maintenance: ")
    await check_accessibility(page)
    admin.call("DELETE", f"/api/v1/banners/{banner['id']}")
    async with page.expect_response("**/api/v1/banners:current"):
        await page.reload()
    await heading(page, "Sign in")
    await expect(told).not_to_be_visible()
