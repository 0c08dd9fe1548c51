"""Users, roles, groups and invitations, as an administrator goes about them."""

import asyncio

import pytest
from administration import Administration, choose, dialog, row, submit
from browsing import PASSWORD, ConsolePlatform, Windows, check_accessibility, fill_in, heading, sign_in
from platform_process import Api
from playwright.async_api import Route, expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture
def administration(windows: Windows, platform: ConsolePlatform, admin: Api) -> Administration:
    return Administration(windows, platform, admin)


async def test_a_new_user_with_a_role_comes_in_by_the_link_that_is_shown(
    administration: Administration, windows: Windows
) -> None:
    page = await administration.open("/admin/users")
    await page.get_by_role("button", name="New user").click()
    box = dialog(page, "New user")
    await box.get_by_label("Username").fill("Not A Name!")
    await box.get_by_role("button", name="Create the user").click()
    await expect(box.get_by_role("alert")).to_contain_text("Username must match")

    await box.get_by_label("Username").fill("nora")
    await choose(page, box.get_by_label("Roles"), "tester")
    await box.get_by_role("button", name="Create the user").click()
    link = await box.get_by_label("Link", exact=True).input_value()
    await submit(box, "Close")
    await page.get_by_label("Name, account or e-mail").fill("nora")
    await expect(page).to_have_url(f"{windows.address}/admin/users?query=nora")
    await expect(row(page, "Users", "nora")).to_contain_text("tester")
    await page.reload()
    await expect(page.get_by_role("table", name="Users").get_by_role("row")).to_have_count(2)

    theirs = await windows.page(link)
    await fill_in(theirs, new_password=PASSWORD)
    await theirs.get_by_role("button", name="Set the password").click()
    await sign_in(theirs, "nora")
    await expect(theirs.get_by_role("link", name="Users")).to_be_hidden()
    await theirs.goto("/admin/users")
    await heading(theirs, "Not allowed")


async def test_a_custom_role_is_made_and_explained(administration: Administration) -> None:
    page = await administration.open("/admin/roles?role=tester")
    await page.get_by_role("button", name="New role").click()
    box = dialog(page, "New role")
    await box.get_by_label("Name", exact=True).fill("labeller")
    await box.get_by_label("Find a permission").fill("quotas")
    await box.get_by_label("auth.quotas.list").check()
    await box.get_by_label("Data of one's groups").check()
    await submit(box, "Create the role")
    await expect(page.get_by_role("region", name="Role labeller")).to_contain_text("Nobody.")

    user_id = administration.user("olivia")
    await page.goto(f"/admin/users/{user_id}")
    await expect(page.get_by_text("This user may do nothing.")).to_be_visible()
    form = page.get_by_role("form", name="The user")
    await choose(page, form.get_by_label("Roles", exact=True), "labeller")
    await form.get_by_role("button", name="Save").click()
    permission = row(page, "Permissions of the user", "auth.quotas.list")
    await expect(permission).to_contain_text("Data of one's groups")
    await expect(permission).to_contain_text("role labeller")
    await page.goto("/admin/roles?role=labeller")
    await expect(page.get_by_role("link", name="olivia", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Delete …").click()
    box = dialog(page, "Delete the role labeller")
    await box.get_by_role("button", name="Delete").click()
    await expect(box.get_by_role("alert")).to_contain_text("is in use by 1 user")


async def test_who_changes_what_another_changed_is_offered_to_load_it_again(administration: Administration) -> None:
    user_id = administration.user("paul", "viewer")
    page = await administration.open(f"/admin/users/{user_id}")
    form = page.get_by_role("form", name="The user")
    name, save = form.get_by_label("Name", exact=True), form.get_by_role("button", name="Save")
    await name.fill("Paul A.")
    administration.api.call("PATCH", f"/api/v1/users/{user_id}", {"roles": ["tester"]}, update_mask="roles")
    await save.click()
    await expect(page.get_by_role("alert")).to_contain_text("Somebody else changed the user paul")
    await page.get_by_role("button", name="Load it again").click()
    await expect(form.get_by_text("tester")).to_be_visible()
    await expect(name).to_have_value("")
    await name.fill("Paul B.")
    await form.get_by_label("E-mail", exact=True).fill("paul.b@example.org")
    await save.click()
    await expect(page.get_by_role("region", name="Account")).to_contain_text("paul.b@example.org verified")
    await heading(page, "Paul B.")


async def test_several_users_are_disabled_at_once_each_with_a_result(administration: Administration) -> None:
    for name in ("quin-1", "quin-2"):
        administration.user(name, "viewer")
    page = await administration.open("/admin/users?query=quin-")
    await page.get_by_label("Select all on this page").check()
    await page.get_by_role("button", name="Disable …").click()
    box = dialog(page, "Disable users")
    await expect(box).to_contain_text("quin-1, quin-2")
    late = administration.api.get("/api/v1/users", query="quin-2")["users"][0]
    administration.api.call("PATCH", f"/api/v1/users/{late['id']}", {"roles": ["tester"]}, update_mask="roles")
    await box.get_by_role("button", name="Disable them").click()
    await expect(box.get_by_role("status")).to_contain_text("1 disabled, 1 failed")
    await expect(box.get_by_role("listitem").filter(has_text="quin-2")).to_contain_text("changed the user quin-2")
    await submit(box, "Close")
    await expect(row(page, "Users", "quin-1")).to_contain_text("Disabled")
    await expect(row(page, "Users", "quin-2")).to_contain_text("tester")

    await page.get_by_label("Select all on this page").check()
    await page.get_by_role("button", name="Roles …").click()
    box = dialog(page, "Roles of users")
    await expect(box.get_by_role("button", name="Change them")).to_be_disabled()
    await choose(page, box.get_by_role("combobox", name="Roles"), "auditor")
    await box.get_by_role("button", name="Change them").click()
    await expect(box.get_by_role("status")).to_contain_text("2 changed, 0 failed")
    await submit(box, "Close")
    for name, before in (("quin-1", "viewer"), ("quin-2", "tester")):
        await expect(row(page, "Users", name)).to_contain_text("auditor")
        await expect(row(page, "Users", name)).to_contain_text(before)


async def test_users_are_found_by_what_they_sign_in_with(administration: Administration) -> None:
    administration.user("sina", "viewer")
    page = await administration.open("/admin/users?query=sina")
    found = row(page, "Users", "sina")
    await expect(found).to_contain_text("Password")
    source = page.get_by_role("combobox", name="Signs in with")
    await choose(page, source, "Corporate login")
    await expect(page.get_by_text("No user fits these filters.")).to_be_visible()
    await choose(page, source, "Password")
    await expect(found).to_be_visible()
    factor = page.get_by_role("combobox", name="Second factor")
    await choose(page, factor, "Has a second factor")
    await expect(page.get_by_text("No user fits these filters.")).to_be_visible()
    await choose(page, factor, "Has no second factor")
    await expect(found).to_be_visible()

    # Which columns one looks at is kept by the browser.
    await expect(page.get_by_role("columnheader", name="Groups")).to_be_visible()
    await page.get_by_text("Columns", exact=True).click()
    await page.get_by_role("group", name="Columns that are shown").get_by_label("Groups").uncheck()
    await check_accessibility(page)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("group", name="Columns that are shown")).to_be_hidden()
    await page.reload()
    await expect(found).to_be_visible()
    await expect(page.get_by_role("columnheader", name="Groups")).to_have_count(0)


async def test_all_sessions_of_a_user_end(administration: Administration, platform: ConsolePlatform) -> None:
    theirs = await administration.open("/profile", username="ximena", roles=("viewer",))
    await heading(theirs, "Your account")
    program = platform.login("ximena", PASSWORD)
    page = await administration.open("/admin/users?query=ximena")
    await page.get_by_role("button", name="Actions on ximena").press("Enter")
    await page.get_by_role("menuitem", name="End all sessions").click()
    await submit(dialog(page, "End all sessions: ximena"), "End them")
    refused = program.http.post("/api/v1/auth/refresh", json={"refresh_token": program.refresh_token})
    assert refused.status_code == 401


async def test_users_come_out_of_a_file_but_for_rows_that_are_wrong(administration: Administration) -> None:
    administration.api.call("POST", "/api/v1/groups", {"name": "vision"})
    page = await administration.open("/profile")
    await heading(page, "Your account")
    are_asked_for = asyncio.Event()

    async def answer_late(route: Route) -> None:
        await are_asked_for.wait()
        await route.continue_()

    for names in ("roles", "groups*"):
        await page.route(f"**/api/v1/{names}", answer_late)
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Users", exact=True).click()
    await page.get_by_role("button", name="Import CSV").click()
    box = dialog(page, "Import users from CSV")
    lines = ["username,display_name,roles,groups", "rita,Rita R.,tester viewer,vision", "Rob,,pilot,"]
    await box.get_by_label("CSV text").fill("\n".join(lines))
    # No row is judged, and none can be sent, before the roles and groups are there that it names.
    await expect(box.get_by_role("status")).to_contain_text("Looking up the roles and groups")
    await expect(box.get_by_role("button", name="Create")).to_have_count(0)
    are_asked_for.set()
    wrong = row(page, "Users of the file", "pilot")
    await expect(wrong).to_contain_text("Left out")
    await expect(wrong).to_contain_text('there is no role "pilot"')
    await box.get_by_role("button", name="Create 1 user").click()
    await expect(box.get_by_text("1 created, 0 ready, 1 left out.")).to_be_visible()
    async with page.expect_download() as saved:
        await box.get_by_role("button", name="Save the links as CSV").click()
    assert "rita,Rita R.,,http" in (await (await saved.value).path()).read_text("utf-8")
    [rita] = administration.api.get("/api/v1/users", query="rita")["users"]
    assert rita["roles"] == ["tester", "viewer"]
    assert len(rita["group_ids"]) == 1


async def test_pages_of_users_are_turned_and_kept_in_the_address(
    administration: Administration, platform: ConsolePlatform
) -> None:
    platform.let_users_be_many("page-", 21)
    page = await administration.open("/admin/users?query=page-&size=20")
    rows = page.get_by_role("table", name="Users").get_by_role("row")
    await expect(rows).to_have_count(21)
    await page.get_by_role("button", name="Next").click()
    await expect(rows).to_have_count(2)
    await page.reload()
    await expect(rows).to_have_count(2)
    await page.go_back()
    await expect(rows).to_have_count(21)


async def test_a_group_gives_its_roles_to_its_members(administration: Administration) -> None:
    user_id = administration.user("sven")
    page = await administration.open("/admin/groups")
    await page.get_by_role("button", name="New group").click()
    box = dialog(page, "New group")
    await box.get_by_label("Name", exact=True).fill("speech")
    await choose(page, box.get_by_label("Roles of its members"), "auditor")
    await box.get_by_label("Members", exact=True).fill("sve")
    await page.get_by_role("option", name="sven").click()
    await expect(box.get_by_role("listitem").filter(has_text="sven")).to_be_visible()
    await submit(box, "Create the group")
    await expect(row(page, "Groups", "speech")).to_contain_text("auditor")
    await page.goto(f"/admin/users/{user_id}")
    await expect(row(page, "Permissions of the user", "auth.audit.list")).to_contain_text("group speech: role auditor")


async def test_an_invitation_is_made_and_taken_back(administration: Administration) -> None:
    page = await administration.open("/admin/invitations")
    await expect(page.get_by_role("note")).to_contain_text("Registration is closed")
    await page.get_by_role("button", name="Invite", exact=True).click()
    box = dialog(page, "Invite somebody")
    await box.get_by_label("E-mail").fill("tess@example.org")
    await choose(page, box.get_by_label("Roles"), "viewer")
    await box.get_by_role("button", name="Make the link").click()
    assert "/register#invitation=" in await box.get_by_label("Link", exact=True).input_value()
    await submit(box, "Close")
    invitation = row(page, "Open invitations", "tess@example.org")
    await invitation.get_by_role("button", name="Revoke …").click()
    await submit(dialog(page, "Take the invitation back"), "Revoke")
    await expect(invitation).to_be_hidden()
