"""A second factor in a browser: set up, asked for, lost, taken away, and required."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from administration import Administration, dialog, row
from browsing import PASSWORD, ConsolePlatform, Windows, check_accessibility, fill_in, heading, make_user, sign_in
from platform_process import Api
from playwright.async_api import Download, Locator, Page, expect

from espalier_common.testing.authenticator import codes_of, wrong_code_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
NewUser = Callable[..., str]
CODE = 'input[name="code"]'


def enrol(platform: ConsolePlatform, user_id: str, username: str) -> tuple[Api, str]:
    """Sets one up as a program does; gives its session, and the secret. The next code is good at once."""
    api = platform.login(username, PASSWORD)
    secret = str(api.call("POST", "/api/v1/me/second-factor", {})["secret"])
    give(api, "confirm", secret)
    platform.let_codes_be_new_again(user_id)
    return api, secret


def give(api: Api, verb: str, secret: str) -> list[str]:
    """The recovery codes that are given for a code."""
    for code in codes_of(secret):
        answer = api.http.post(f"/api/v1/me/second-factor:{verb}", json={"code": code})
        if answer.is_success:
            break
    return list(answer.json()["recovery_codes"])


async def type_code(field: Locator, secret: str, *, then: Locator) -> None:
    """Gives the code that the authenticator shows, as often as it ran out on its way, until one sees what follows."""
    refused = field.page.get_by_role("alert").filter(has_text="ran out")
    for code in codes_of(secret):
        await field.fill(code)
        await field.press("Enter")
        await expect(then.or_(refused).first).to_be_visible()
        if not await refused.is_visible():
            return


def runs(page: Page) -> Locator:
    """Where one is once one is signed in."""
    return page.get_by_role("heading", level=1, name="Training runs")


async def scan(place: Page | Locator) -> str:
    """The secret that is shown to be put into an app."""
    await expect(place.get_by_role("img", name="QR code for an authenticator app")).to_be_visible()
    return await place.get_by_label("Secret", exact=True).input_value()


async def keep_codes(place: Page | Locator) -> list[str]:
    """The recovery codes that are shown once; closes what shows them."""
    codes = (await place.get_by_label("Recovery codes", exact=True).input_value()).split()
    await place.get_by_role("button", name="I have kept them").click()
    return codes


async def read(saved: Download) -> list[str]:
    """The words of a file that the browser has saved."""
    path = await saved.path()
    return (await asyncio.to_thread(path.read_text, "utf-8")).split()


async def begin_sign_in(page: Page, username: str) -> Locator:
    """The field for the code: the password is right, and not enough."""
    await page.goto("/login")
    await fill_in(page, username=username, password=PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    field = page.get_by_label("Code of your authenticator")
    await expect(field).to_be_focused()
    return field


async def test_who_sets_up_a_second_factor_signs_in_with_its_codes(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("agathe")
    page = await windows.signed_in("agathe", "/profile/second-factor")
    await page.get_by_role("button", name="Set it up").click()
    secret = await scan(page)
    await check_accessibility(page)
    await fill_in(page, code=wrong_code_of(secret))
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    await type_code(page.locator(CODE), secret, then=page.get_by_label("Recovery codes", exact=True))
    await check_accessibility(page)
    async with page.expect_download() as saving:
        await page.get_by_role("button", name="Save as a file").click()
    saved = await read(await saving.value)
    codes = await keep_codes(page)
    assert saved[-10:] == codes
    await expect(page.get_by_text("10 of 10")).to_be_visible()
    assert codes[0] not in await page.content()

    other = await windows.page("/login")
    field = await begin_sign_in(other, "agathe")
    await expect(field).to_have_attribute("autocomplete", "one-time-code")
    await expect(field).to_have_attribute("inputmode", "numeric")
    await check_accessibility(other)
    await field.fill(wrong_code_of(secret))
    await field.press("Enter")
    await expect(other.get_by_role("alert")).to_contain_text("The code is wrong")
    await expect(field).to_have_value("")
    await expect(field).to_be_focused()
    platform.let_codes_be_new_again(user_id)
    await type_code(field, secret, then=runs(other))


async def test_a_recovery_code_stands_in_once_and_new_ones_are_made(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("bruno")
    api, secret = enrol(platform, user_id, "bruno")
    first, second, *_ = give(api, "newRecoveryCodes", secret)
    page = await windows.page()
    await begin_sign_in(page, "bruno")
    await page.get_by_role("button", name="Use a recovery code").click()
    field = page.get_by_label("Recovery code", exact=True)
    await expect(field).to_be_focused()
    # As it may have been noted: with blanks, in capitals.
    await field.fill(first.replace("-", " ").upper())
    await field.press("Enter")
    await heading(page, "Training runs")

    await page.goto("/profile/second-factor")
    await expect(page.get_by_text("9 of 10")).to_be_visible()
    await page.get_by_role("button", name="New recovery codes").click()
    box = dialog(page, "New recovery codes")
    await box.get_by_role("button", name="Use a recovery code").click()
    await box.get_by_label("Recovery code", exact=True).fill(second)
    await check_accessibility(page)
    await page.keyboard.press("Enter")
    third, *_ = await keep_codes(box)
    await expect(page.get_by_text("10 of 10")).to_be_visible()

    await page.get_by_role("button", name="Remove …").click()
    box = dialog(page, "Remove your second factor")
    await box.get_by_role("button", name="Use a recovery code").click()
    await box.get_by_label("Recovery code", exact=True).fill(third)
    await box.get_by_role("button", name="Remove it").click()
    await expect(page.get_by_role("button", name="Set it up")).to_be_visible()
    await sign_in(await windows.page("/login"), "bruno")


async def test_signing_in_again_over_a_page_takes_a_code_too_and_the_password_once(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("cosima")
    _, secret = enrol(platform, user_id, "cosima")
    page = await windows.page()
    await type_code(await begin_sign_in(page, "cosima"), secret, then=runs(page))
    platform.let_sign_ins_age(user_id)
    platform.let_codes_be_new_again(user_id)
    await page.goto("/profile")
    await fill_in(page, email="cosima@example.org")
    await page.get_by_role("button", name="Save").click()
    box = dialog(page, "Is it you?")
    await fill_in(page, again=PASSWORD)
    await box.get_by_role("button", name="Sign in").click()
    await expect(box.get_by_label("Code of your authenticator")).to_be_focused()
    await check_accessibility(page)
    await type_code(box.locator(CODE), secret, then=page.get_by_text("Saved."))


async def test_a_new_password_takes_a_code_before_the_session_goes_on(
    windows: Windows, platform: ConsolePlatform, new_user: NewUser
) -> None:
    user_id = new_user("damian")
    _, secret = enrol(platform, user_id, "damian")
    page = await windows.page()
    await type_code(await begin_sign_in(page, "damian"), secret, then=runs(page))
    platform.let_codes_be_new_again(user_id)
    await page.goto("/profile/password")
    await fill_in(page, current_password=PASSWORD, new_password="an orange bicycle")
    await page.get_by_role("button", name="Change password").click()
    await expect(page.get_by_text("give a code of your second factor")).to_be_visible()
    chosen = page.locator('input[name="new-password"]')
    await type_code(page.locator(CODE), secret, then=chosen)
    await expect(page.get_by_text("Your password is changed.")).to_be_visible()
    await expect(chosen).to_have_value("")


async def test_an_administrator_takes_away_what_somebody_lost(
    windows: Windows, platform: ConsolePlatform, admin: Api, new_user: NewUser
) -> None:
    user_id = new_user("edda")
    enrol(platform, user_id, "edda")
    page = await Administration(windows, platform, admin).open("/admin/users?query=edda")
    found = row(page, "Users", "edda")
    await expect(found).to_contain_text("and a second factor")
    await page.get_by_role("button", name="Actions on edda").click()
    await page.get_by_role("menuitem", name="Remove the second factor").click()
    box = dialog(page, "Remove the second factor: edda")
    await check_accessibility(page)
    await box.get_by_role("button", name="Remove it").click()
    await expect(box).to_be_hidden()
    await expect(found).not_to_contain_text("and a second factor")
    await sign_in(await windows.page("/login"), "edda")


@pytest.fixture
def required(platform: ConsolePlatform, admin: Api) -> Iterator[Callable[[], None]]:
    """Lets the platform require second factors from now on, until the test is over.

    The change is made and undone by somebody who has one. Nobody else's token may be renewed meanwhile but those of the
    test's pages: it would be good for nothing else for minutes.
    """
    user_id = make_user(platform, admin, "faber", roles=("admin",))
    api, _ = enrol(platform, user_id, "faber")
    name = "auth.second_factor"
    yield lambda: api.call("PATCH", f"/api/v1/settings/{name}", {"name": name, "value": "required"})
    api.call("POST", f"/api/v1/settings/{name}:reset", {})


async def test_who_has_to_set_one_up_is_led_to_it_and_sees_nothing_else(
    windows: Windows, new_user: NewUser, required: Callable[[], None]
) -> None:
    new_user("gerda")
    new_user("hugo")
    working = await windows.signed_in("hugo", "/profile")
    await fill_in(working, name="Hugo of the long form")
    required()

    page = await windows.signed_in("gerda", "/profile/usage")
    await heading(page, "Set up a second factor")
    await scan(page)
    await expect(page.get_by_role("navigation")).to_have_count(0)
    await check_accessibility(page)
    await page.goto("/runs")
    await heading(page, "Set up a second factor")
    secret = await scan(page)
    await type_code(page.locator(CODE), secret, then=page.get_by_label("Recovery codes", exact=True))
    await keep_codes(page)
    await heading(page, "Training runs")

    # Whoever is at work meanwhile sets one up over his page, which then goes on by itself.
    await working.context.clear_cookies(name="espalier_access")
    await working.get_by_role("button", name="Save").click()
    box = dialog(working, "Set up a second factor")
    secret = await scan(box)
    await check_accessibility(working)
    await type_code(box.locator(CODE), secret, then=box.get_by_label("Recovery codes", exact=True))
    await keep_codes(box)
    await expect(box).to_be_hidden()
    await expect(working.get_by_text("Saved.")).to_be_visible()
    await expect(working.locator('input[name="name"]')).to_have_value("Hugo of the long form")
