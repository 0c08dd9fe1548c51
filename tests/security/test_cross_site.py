"""A browser's cookies serve no other site: CSRF, foreign origins, foreign hosts, bodies that a form can send."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from people import user
from platform_process import Platform

PASSWORD = "the password of bruno 71"


@pytest.fixture
def browser(platform: Platform, bruno: str) -> Iterator[httpx.Client]:
    """A page of the console that is signed in by cookies."""
    with httpx.Client(base_url=platform.url, timeout=30) as http:
        answer = http.post("/api/v1/auth/login", json={"username": bruno, "password": PASSWORD, "cookie": True})
        assert answer.status_code == 200
        assert answer.json()["access_token"] == answer.json()["refresh_token"] == ""
        yield http


@pytest.fixture(scope="module")
def bruno(platform: Platform) -> str:
    user(platform, "bruno", "trainer")
    return "bruno"


def csrf(browser: httpx.Client) -> dict[str, str]:
    return {"x-csrf-token": str(browser.cookies["espalier_csrf"])}


def test_cookies_are_for_this_site_alone_and_scripts_do_not_see_the_tokens(platform: Platform, bruno: str) -> None:
    body = {"username": bruno, "password": PASSWORD, "cookie": True}
    cookies = httpx.post(f"{platform.url}/api/v1/auth/login", json=body).headers.get_list("set-cookie")
    assert {cookie.split("=")[0] for cookie in cookies} >= {"espalier_access", "espalier_refresh", "espalier_csrf"}
    for cookie in cookies:
        assert "SameSite=Strict" in cookie
        assert "Path=/" in cookie
        assert ("HttpOnly" in cookie) is not cookie.startswith("espalier_csrf")


CHANGES = [
    ("POST", "/api/v1/prompts", {"name": "planted", "text": "planted"}),
    ("POST", "/api/v1/me/password", {"current_password": PASSWORD, "new_password": "another password 72"}),
    ("PATCH", "/api/v1/users/00000000-0000-4000-8000-000000000000?update_mask=disabled", {"disabled": True}),
    ("DELETE", "/api/v1/files/00000000-0000-4000-8000-000000000000", None),
    ("POST", "/api/v1/auth/refresh", {}),
    ("POST", "/api/v1/auth/logout", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda part: str(part)[:40])
@pytest.mark.parametrize("header", [{}, {"x-csrf-token": ""}, {"x-csrf-token": "guessed"}])
def test_a_change_by_cookie_needs_the_header(
    browser: httpx.Client, method: str, path: str, body: Any, header: dict[str, str]
) -> None:
    answer = browser.request(method, path, json=body, headers=header)
    assert answer.status_code == 403
    assert answer.json()["reason"] == "CSRF_REFUSED"


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda part: str(part)[:40])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1"]
)
def test_a_change_from_another_origin_is_refused_even_with_the_header(
    browser: httpx.Client, method: str, path: str, body: Any, origin: str
) -> None:
    answer = browser.request(method, path, json=body, headers={**csrf(browser), "origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_no_answer_is_shared_with_another_origin(browser: httpx.Client) -> None:
    asked = {"origin": "https://evil.example"}
    preflight = {**asked, "access-control-request-method": "POST", "access-control-request-headers": "x-csrf-token"}
    answers = [
        browser.get("/api/v1/me", headers=asked),
        browser.options("/api/v1/prompts", headers=preflight),
        browser.options("/api/v1/files", headers=preflight),
    ]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-allow")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_body_that_a_form_can_send_is_not_read(browser: httpx.Client, media_type: str) -> None:
    before = browser.get("/api/v1/prompts").json()
    answer = browser.post(
        "/api/v1/prompts",
        content=b'{"name": "planted", "text": "planted"}',
        headers={**csrf(browser), "content-type": media_type},
    )
    assert answer.status_code == 415
    assert browser.get("/api/v1/prompts").json() == before


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "admin@127.0.0.1", "[", "127.0.0.1/x", ""])
def test_another_host_is_not_served(browser: httpx.Client, host: str) -> None:
    answer = browser.get("/api/v1/me", headers={"host": host})
    assert answer.status_code in {400, 421}


def test_reading_changes_nothing_so_a_link_cannot(browser: httpx.Client) -> None:
    for path in ("/api/v1/auth/logout", "/api/v1/auth/refresh", "/api/v1/training/runs:plan"):
        assert browser.get(path).status_code in {404, 405}
    assert browser.get("/api/v1/me").status_code == 200


def test_with_the_header_the_console_works(browser: httpx.Client) -> None:
    made = browser.post("/api/v1/prompts", json={"name": "of my own", "text": "Hello."}, headers=csrf(browser))
    assert made.status_code == 200
    assert browser.post("/api/v1/auth/refresh", json={}, headers=csrf(browser)).status_code == 200
    assert browser.post("/api/v1/auth/logout", json={}, headers=csrf(browser)).status_code == 200
    assert browser.get("/api/v1/me").status_code == 401


def test_what_no_client_needs_is_not_offered(platform: Platform) -> None:
    with httpx.Client(base_url=platform.url, timeout=30) as http:
        for method in ("TRACE", "TRACK", "CONNECT", "DEBUG"):
            assert http.request(method, "/api/v1/prompts").status_code in {400, 404, 405, 501}
        for path in ("/metrics", "/.git/config", "/debug", "/assets/", "/assets/..%2f..%2f.env", "/server-status"):
            answer = http.get(path)
            # A path without a dot may be a page of the console, which is the same for all of them.
            assert answer.status_code in {401, 404} or "<!doctype html" in answer.text.lower()
        assert "server" not in http.get("/healthz").headers
