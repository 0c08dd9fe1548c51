"""A second factor over the whole platform: the browser's sign-in, the command line, and where it is required."""

import json
from typing import Any

import httpx
import pytest
from people import enrol
from platform_process import Api, Platform, within

PASSWORD = "a quiet green lamp"
SIGN_IN = "/api/v1/auth/login"
SETTING = "/api/v1/settings/auth.second_factor"


def newcomer(platform: Platform, admin: Api, name: str, *roles: str) -> Api:
    admin.call("POST", "/api/v1/users", {"user": {"username": name, "roles": roles}, "password": PASSWORD})
    return platform.login(name, PASSWORD)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["reason"])


def test_a_browser_signs_in_with_a_code_and_gets_no_cookie_without(platform: Platform, admin: Api) -> None:
    codes = enrol(newcomer(platform, admin, "codes-browser", "viewer"))
    body: dict[str, Any] = {"username": "codes-browser", "password": PASSWORD, "cookie": True}
    with httpx.Client(base_url=platform.url, timeout=60) as browser:
        for more, reason in (({}, "SECOND_FACTOR_REQUIRED"), ({"code": "not a code"}, "SECOND_FACTOR_WRONG")):
            assert refused(browser.post(SIGN_IN, json=body | more)) == (401, reason)
            assert not browser.cookies
        answer = browser.post(SIGN_IN, json=body | {"code": codes[0]})
        assert answer.is_success, answer.text
        assert not answer.json()["access_token"]
        me = browser.get("/api/v1/me").json()
        assert me["user"]["second_factor_enrolled"]
        assert refused(browser.post(SIGN_IN, json=body | {"code": codes[0]})) == (401, "SECOND_FACTOR_WRONG")


def test_where_it_is_required_nothing_is_done_before_it(platform: Platform, admin: Api) -> None:
    newcomer(platform, admin, "codes-required", "trainer")
    admin.call("PATCH", SETTING, {"value": "required"})
    try:
        tied = platform.login("codes-required", PASSWORD)
    finally:
        admin.call("POST", f"{SETTING}:reset", {})

    me = tied.get("/api/v1/me")
    assert (me["second_factor_enrolment_required"], me["permissions"]) == (True, [])
    to_enrol = (403, "SECOND_FACTOR_ENROLMENT_REQUIRED")
    for method, path in (
        ("GET", "/api/v1/training/runs"),
        ("GET", "/api/v1/prompts"),
        ("GET", "/api/v1/models"),
        ("GET", "/api/v1/me/sessions"),
        ("POST", "/api/v1/me/api-keys"),
        ("POST", "/api/v1/files"),
    ):
        assert refused(tied.http.request(method, path, json=None if method == "GET" else {})) == to_enrol, path
    models = tied.http.get("/v1/models")
    assert (models.status_code, "second factor" in models.text) == (403, True)

    enrol(tied)
    renewed = httpx.post(
        f"{platform.url}/api/v1/auth/refresh", json={"refresh_token": tied.refresh_token}, timeout=60
    ).json()
    assert not renewed["second_factor_enrolment_required"]
    bearer = {"authorization": f"Bearer {renewed['access_token']}"}
    assert httpx.get(f"{platform.url}/api/v1/training/runs", headers=bearer, timeout=60).is_success


@pytest.mark.parametrize("by", ["administrator", "machine"])
def test_a_lost_factor_is_removed_and_the_sessions_end_within_seconds(platform: Platform, admin: Api, by: str) -> None:
    name = f"codes-lost-{by}"
    owner = newcomer(platform, admin, name, "viewer")
    enrol(owner)
    id = owner.get("/api/v1/me")["user"]["id"]
    assert admin.get(f"/api/v1/users/{id}")["second_factor_enrolled"]
    if by == "machine":
        platform.command("remove-second-factor", name)
    else:
        admin.call("POST", f"/api/v1/users/{id}:removeSecondFactor", {})

    within(5.0, lambda: owner.http.get("/api/v1/prompts").status_code == 401, what="the end of the sessions")
    assert not admin.get(f"/api/v1/users/{id}")["second_factor_enrolled"]
    assert platform.login(name, PASSWORD).get("/api/v1/me")["user"]["username"] == name


def test_the_command_line_signs_in_with_a_code(platform: Platform, admin: Api) -> None:
    codes = enrol(newcomer(platform, admin, "codes-command", "viewer"))
    word = platform.home / "codes-command-password"
    word.write_text(PASSWORD, "utf-8")
    sign_in = ("login", "-u", "codes-command", "--password-file", str(word), "--server", platform.url)
    without = platform.command(*sign_in, check=False)
    assert (without.returncode, "has a second factor" in without.stderr) == (4, True)

    platform.command(*sign_in, "--code", codes[0])
    shown = json.loads(platform.command("second-factor", "show", "-o", "json").stdout)
    assert (shown["enrolled"], shown["recovery_codes_left"]) == (True, 9)
    made = json.loads(platform.command("second-factor", "recovery-codes", "--code", codes[1], "-o", "json").stdout)
    platform.command("second-factor", "remove", "--code", made["recovery_codes"][0])
    platform.command("login", "-u", "codes-command", "--password-file", str(word))
    platform.command("logout")
