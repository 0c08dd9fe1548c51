"""The audit log, limits, use, settings and announcements, as an administrator goes about them."""

import json
import re

import pytest
from administration import BOSS, Administration, choose, dialog, row, submit
from browsing import ConsolePlatform, Windows, check_accessibility, heading
from platform_process import Api
from playwright.async_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture
def administration(windows: Windows, platform: ConsolePlatform, admin: Api) -> Administration:
    return Administration(windows, platform, admin)


async def test_what_an_administrator_did_stands_in_the_audit_log_with_before_and_after(
    administration: Administration,
) -> None:
    user_id = administration.user("ulla", "viewer")
    page = await administration.open(f"/admin/users/{user_id}")
    form = page.get_by_role("form", name="The user")
    await form.get_by_label("Name", exact=True).fill("Ulla U.")
    await form.get_by_role("button", name="Save").click()
    await heading(page, "Ulla U.")

    await administration.wait_for_event(actor=BOSS, target=f"users/{user_id}")
    await page.goto(f"/admin/audit?actor={BOSS}&target=users/{user_id}")
    await expect(row(page, "Audit events", "Update user").first).to_contain_text(f"ullausers/{user_id}")
    await page.get_by_role("button", name="Details of Update user").click()
    change = page.get_by_role("table", name=f"users/{user_id}, changed").get_by_role("row", name="display_name")
    await expect(change.locator("del")).to_have_text("(empty)")
    await expect(change.locator("ins")).to_have_text("Ulla U.")

    async with page.expect_download() as saved:
        await page.get_by_role("link", name="Export JSONL").click()
    lines = (await (await saved.value).path()).read_text("utf-8").splitlines()
    assert [json.loads(line)["target"] for line in lines] == [f"users/{user_id}"]
    await page.get_by_role("button", name="Check the chain").click()
    await expect(page.get_by_role("region", name="Integrity")).to_contain_text("Whole:")


async def test_an_auditor_reads_what_things_are_called_those_that_are_gone_too(administration: Administration) -> None:
    api = administration.api
    group_id = api.call("POST", "/api/v1/groups", {"name": "lichens"})["id"]
    api.call("DELETE", f"/api/v1/groups/{group_id}")
    await administration.wait_for_event(action="espalier.auth.v1.GroupService/DeleteGroup", target=f"groups/{group_id}")
    # Of all that happened to the group the page shows what does not say that it is gone.
    address = f"/admin/audit?target=groups/{group_id}&action=espalier.auth.v1.GroupService/CreateGroup"
    page = await administration.open(address, username="ubald", roles=("auditor",))
    await expect(row(page, "Audit events", "Create group")).to_contain_text(f"lichens deletedgroups/{group_id}")


async def test_a_limit_is_set_changed_and_lifted(administration: Administration) -> None:
    administration.user("vivian")
    page = await administration.open("/admin/quotas")
    await page.get_by_role("button", name="New limit").click()
    box = dialog(page, "New limit")
    await box.get_by_role("button", name="Set the limit").click()
    await expect(box.get_by_role("alert")).to_contain_text("0 allows nothing")
    await box.get_by_label("At most (tokens)").fill("7")
    await box.get_by_role("button", name="Set the limit").click()
    await expect(box.get_by_role("alert")).to_contain_text("User or group_id must be given")
    await box.get_by_label("User", exact=True).fill("viv")
    await page.get_by_role("option", name="vivian").click()
    await choose(page, box.get_by_label("What is limited"), "GPU time")
    await box.get_by_label("At most (GPU-hours)").fill("12")
    await box.get_by_label("a month").check()
    await submit(box, "Set the limit")
    limit = row(page, "Limits", "vivian")
    await expect(limit).to_contain_text("12 GPU-hours a month")
    await expect(limit).to_contain_text("0 GPU-hours 0 %")

    await limit.get_by_role("button", name="Change").click()
    box = dialog(page, "Change the limit")
    await box.get_by_label("At most (GPU-hours)").fill("20")
    await submit(box, "Save")
    await expect(limit).to_contain_text("20 GPU-hours")
    await limit.get_by_role("button", name="Lift …").click()
    await submit(dialog(page, "Lift the limit"), "Lift it")
    await expect(limit).to_be_hidden()


async def test_a_setting_says_where_its_value_comes_from(administration: Administration) -> None:
    page = await administration.open("/admin/settings")
    setting = page.get_by_role("form", name="auth.password_min_length")
    await expect(setting).to_contain_text("Default")
    await setting.get_by_label("auth.password_min_length", exact=True).fill("4")
    await setting.get_by_role("button", name="Save").click()
    await expect(setting.get_by_role("alert")).to_contain_text("12 to 128")
    await setting.get_by_label("auth.password_min_length", exact=True).fill("14")
    await setting.get_by_role("button", name="Save").click()
    await expect(setting).to_contain_text(f"by {BOSS}")
    await check_accessibility(page)
    await setting.get_by_role("button", name="Back to 12, the default").click()
    await expect(setting).to_contain_text("Default")


async def test_everybody_is_told_what_is_announced_until_it_is_taken_away(
    administration: Administration, windows: Windows
) -> None:
    page = await administration.open("/admin/announcements")
    await page.get_by_role("button", name="New announcement").click()
    box = dialog(page, "New announcement")
    await box.get_by_label("Text").fill("The cluster rests on Sunday.")
    await box.get_by_label("Maintenance").check()
    await box.get_by_label("From").fill("2020-01-05T08:00")
    await box.get_by_label("Until").fill("2020-01-04T08:00")
    await box.get_by_role("button", name="Announce it").click()
    await expect(box.get_by_role("alert")).to_be_visible()
    await box.get_by_label("Until").fill("2120-01-05T10:00")
    await submit(box, "Announce it")
    told = page.get_by_role("complementary", name="Announcements").get_by_text("The cluster rests on Sunday.")
    await expect(told).to_contain_text("Maintenance: ")
    before_the_sign_in = await windows.page("/login")
    await expect(before_the_sign_in.get_by_text("The cluster rests on Sunday.")).to_be_visible()

    await row(page, "Announcements", "rests on Sunday").get_by_role("button").click()
    await expect(told).to_be_hidden()


async def test_what_nobody_measured_is_no_zero(administration: Administration, windows: Windows) -> None:
    page = await administration.open("/admin/usage")
    await expect(page.get_by_role("group", name="GPU-hours")).to_contain_text("no data")
    await page.get_by_text("7 days", exact=True).click()
    await expect(page).to_have_url(f"{windows.address}/admin/usage?days=7")
    await choose(page, page.get_by_role("combobox", name="Told apart by"), "by user")
    await expect(page).to_have_url(f"{windows.address}/admin/usage?days=7&by=user")
    await expect(page.get_by_text("No data: nothing of this was used in the period.")).to_be_visible()


async def test_a_bar_of_the_chart_leads_to_its_day_and_a_name_to_what_it_used(
    administration: Administration, platform: ConsolePlatform
) -> None:
    user_id = administration.user("ylva")
    platform.let_be_used(user_id, "TOKENS_IN", 700, at="2001-02-03T10:20:00Z", model="birch")
    platform.let_be_used(user_id, "TOKENS_OUT", 100, at="2001-02-03T10:21:00Z", model="birch", estimated=True)
    platform.let_be_used(user_id, "TOKENS_IN", 9_000, at="2001-02-03T11:20:00Z", model="oak", source="training")
    platform.let_be_used(user_id, "STORED_BYTES", 5 * 2**30, at="2001-02-02T11:20:00Z")
    page = await administration.open("/admin/usage?from=2001-02-01&to=2001-02-05")
    await expect(page.get_by_role("group", name="Tokens", exact=True)).to_contain_text("9,700 in, 100 out")
    async with page.expect_download() as saved:
        await page.get_by_role("button", name="Save figures").click()
    figures = (await (await saved.value).path()).read_text("utf-8").splitlines()
    assert f"top_users,ylva,{user_id},2001-02-01T00:00:00.000Z,2001-02-06T00:00:00.000Z,9800," in figures
    assert "gpu_hours,,,2001-02-01T00:00:00.000Z,2001-02-06T00:00:00.000Z,," in figures

    chart = page.get_by_role("region", name="Use over time")
    await chart.get_by_role("img", name="9,800 tokens in all, at most 9,800 in one day").click()
    await expect(page).to_have_url(re.compile("from=2001-02-03&to=2001-02-03&grain=hour"))
    await expect(chart.get_by_role("img", name="9,800 tokens in all, at most 9,000 in one hour")).to_be_visible()
    await chart.get_by_role("link", name="birch").click()
    await expect(chart.get_by_text("only birch")).to_be_visible()
    await expect(chart.get_by_role("img", name="800 tokens in all")).to_be_visible()
    await expect(chart.get_by_text("100 tokens of it are estimated")).to_be_visible()
    measure = chart.get_by_role("combobox", name="What is counted")
    await choose(page, measure, "Tokens trained on")
    await expect(chart.get_by_text("No data: nothing of this was used in the period.")).to_be_visible()

    await page.goto("/admin/usage?from=2001-02-01&to=2001-02-02&measure=stored&by=user")
    await chart.get_by_role("button", name="Show as table").click()
    table = chart.get_by_role("table")
    await expect(table.get_by_role("row", name="Feb 1")).to_contain_text("0 B")
    await expect(table.get_by_role("row", name="Feb 2")).to_contain_text("5 GiB")
    await check_accessibility(page)
