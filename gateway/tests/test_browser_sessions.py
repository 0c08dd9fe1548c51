"""Sign-in by cookie, CSRF, foreign pages and foreign hosts."""

import asyncio
from typing import Any

import httpx
import pytest

from espalier_gateway import renewals
from espalier_gateway.renewals import Renewals

from .running import RunningGateway, StartGateway

LOGIN = "/api/v1/auth/login"
ADA = {"username": "ada", "password": "correct horse battery"}


async def sign_in(gateway: RunningGateway) -> Any:
    """A client that keeps cookies as a browser does, and its CSRF token."""
    client = httpx.AsyncClient(base_url=f"http://{gateway.address}", verify=False, trust_env=False)
    gateway.fakes["auth"].access_token = gateway.token()
    answer = await client.post(LOGIN, json={**ADA, "cookie": True})
    assert answer.status_code == 200, answer.text
    return client, answer


async def test_a_login_without_cookie_answers_tokens_in_the_body(gateway: RunningGateway) -> None:
    answer = await gateway.client.post(LOGIN, json=ADA)
    assert answer.json()["access_token"] == "access-1"
    assert "set-cookie" not in answer.headers


async def test_a_login_with_cookie_answers_cookies_and_no_token_in_the_body(gateway: RunningGateway) -> None:
    client, answer = await sign_in(gateway)
    body = answer.json()
    assert (body["access_token"], body["refresh_token"], body["expires_in"]) == ("", "", 600)
    cookies = {each.partition("=")[0]: each for each in answer.headers.get_list("set-cookie")}
    assert set(cookies) == {"espalier_access", "espalier_refresh", "espalier_csrf", "espalier_device"}
    for name, text in cookies.items():
        assert "SameSite=Strict" in text
        assert "Path=/" in text
        assert "Max-Age=" in text
        # Plain http on loopback: a Secure cookie would not come back.
        assert "Secure" not in text
        assert ("HttpOnly" in text) is (name != "espalier_csrf")
    await client.aclose()


async def test_a_browser_that_is_to_forget_the_session_is_given_no_time_for_it_at_any_renewal(
    gateway: RunningGateway,
) -> None:
    gateway.fakes["auth"].access_token = gateway.token()
    answer = await gateway.client.post(LOGIN, json={**ADA, "cookie": True, "until_closed": True})
    for _ in range(2):
        cookies = {each.partition("=")[0]: each for each in answer.headers.get_list("set-cookie")}
        for name in ("espalier_access", "espalier_refresh", "espalier_csrf"):
            assert "Max-Age" not in cookies[name]
            assert "expires" not in cookies[name].lower()
        proof = {"x-csrf-token": gateway.client.cookies["espalier_csrf"]}
        answer = await gateway.client.post("/api/v1/auth/refresh", json={}, headers=proof)
        assert answer.status_code == 200, answer.text
    # Another sign-in chooses anew.
    answer = await gateway.client.post(LOGIN, json={**ADA, "cookie": True})
    assert all("Max-Age=" in each for each in answer.headers.get_list("set-cookie"))


async def test_a_sign_in_at_a_provider_answers_cookies_too(gateway: RunningGateway) -> None:
    address = "/api/v1/auth/oidc/corporate:finish"
    body = {"code": "c", "state": "s", "binding": "b"}
    answer = await gateway.client.post(address, json={**body, "cookie": True})
    assert (answer.json()["access_token"], answer.json()["refresh_token"]) == ("", "")
    cookies = {each.partition("=")[0] for each in answer.headers.get_list("set-cookie")}
    assert cookies >= {"espalier_access", "espalier_refresh", "espalier_csrf"}
    gateway.client.cookies.clear()

    answer = await gateway.client.post(address, json=body)
    assert answer.json()["access_token"] == "access-o"
    assert "set-cookie" not in answer.headers
    assert gateway.fakes["oidc"].requests[0].provider == "corporate"


async def test_behind_https_cookies_are_secure_and_bound_to_the_host(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(public_url="https://espalier.example.org")
    answer = await gateway.client.post(LOGIN, json={**ADA, "cookie": True})
    for text in answer.headers.get_list("set-cookie"):
        assert text.startswith("__Host-espalier_")
        assert "Secure" in text
        assert "Path=/" in text
        assert "Domain" not in text
    assert "strict-transport-security" in answer.headers


async def test_the_cookie_signs_reading_requests_in(gateway: RunningGateway) -> None:
    client, _ = await sign_in(gateway)
    answer = await client.get("/api/v1/me")
    assert answer.status_code == 200
    assert gateway.fakes["users"].metadata[0]["authorization"].startswith("Bearer ey")
    await client.aclose()


async def test_a_changing_request_by_cookie_needs_the_csrf_header(gateway: RunningGateway) -> None:
    client, _ = await sign_in(gateway)
    dataset = {"name": "d"}
    for headers in (
        {},
        {"x-csrf-token": "wrong"},
        {"x-csrf-token": ""},
        {"x-csrf-token": "é".encode().decode("latin-1")},
    ):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = await client.post("/api/v1/training/datasets", json=dataset, headers=encoded)
        assert (answer.status_code, answer.json()["reason"]) == (403, "CSRF_REFUSED")
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    answer = await client.post("/api/v1/training/datasets", json=dataset, headers=headers)
    assert answer.status_code == 200, answer.text
    await client.aclose()


async def test_a_bearer_token_needs_no_csrf_header_even_beside_cookies(gateway: RunningGateway) -> None:
    client, _ = await sign_in(gateway)
    headers = {"authorization": f"Bearer {gateway.token()}"}
    answer = await client.post("/api/v1/training/datasets", json={"name": "d"}, headers=headers)
    assert answer.status_code == 200
    await client.aclose()


async def test_refresh_and_logout_work_from_the_cookies(gateway: RunningGateway) -> None:
    client, _ = await sign_in(gateway)
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    refused = await client.post("/api/v1/auth/refresh", json={})
    assert refused.status_code == 403
    answer = await client.post("/api/v1/auth/refresh", json={}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["refresh_token"] == ""
    assert client.cookies["espalier_refresh"] == "refresh-2"
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    answer = await client.post("/api/v1/auth/logout", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})
    assert gateway.fakes["auth"].requests[-1].refresh_token == "refresh-2"
    # The device stays known, which signs nobody in.
    assert set(client.cookies) == {"espalier_device"}
    await client.aclose()


async def test_a_new_sign_in_ends_the_session_that_the_browser_leaves_behind(gateway: RunningGateway) -> None:
    client, _ = await sign_in(gateway)
    auth, kept = gateway.fakes["auth"], client.cookies["espalier_refresh"]
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    answer = await client.post(LOGIN, json={**ADA, "cookie": True}, headers=headers)
    assert answer.status_code == 200
    assert [type(request).__name__ for request in auth.requests[-2:]] == ["LoginRequest", "LogoutRequest"]
    assert auth.requests[-1].refresh_token == kept
    # The new one is in the browser: what ended is the old one alone.
    assert {each.partition("=")[0] for each in answer.headers.get_list("set-cookie")} >= {"espalier_refresh"}
    assert client.cookies["espalier_access"]

    # Without the console's header nobody's session ends: the sign-in is one beside it.
    told = len(auth.requests)
    assert (await client.post(LOGIN, json={**ADA, "cookie": True})).status_code == 200
    assert [type(request).__name__ for request in auth.requests[told:]] == ["LoginRequest"]
    # One for tokens in the body is no browser's.
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    assert (await client.post(LOGIN, json=ADA, headers=headers)).status_code == 200
    assert type(auth.requests[-1]).__name__ == "LoginRequest"
    await client.aclose()


async def test_a_session_that_auth_has_ended_is_removed_from_the_browser(gateway: RunningGateway) -> None:
    client, _ = await sign_in(gateway)
    gateway.fakes["auth"].refresh_tokens = set()
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    answer = await client.post("/api/v1/auth/refresh", headers=headers)
    assert answer.status_code == 401
    # The device stays known, which signs nobody in.
    assert set(client.cookies) == {"espalier_device"}
    await client.aclose()


async def test_the_tabs_of_a_browser_that_refresh_at_once_get_one_answer(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = await sign_in(gateway)
    auth, share, arrived = gateway.fakes["auth"], Renewals.share, asyncio.Semaphore(0)

    async def noted(*arguments: Any, **named: Any) -> Any:
        arrived.release()
        return await share(*arguments, **named)

    monkeypatch.setattr(Renewals, "share", noted)
    auth.may_refresh.clear()
    headers = {"x-csrf-token": client.cookies["espalier_csrf"]}
    tabs = [
        asyncio.create_task(client.post("/api/v1/auth/refresh", json={}, headers=headers, timeout=60))
        for _ in range(10)
    ]
    for _ in tabs:
        await asyncio.wait_for(arrived.acquire(), 60)
    tabs[0].cancel()
    auth.may_refresh.set()
    answers = await asyncio.gather(*tabs[1:])

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.cookies["espalier_refresh"] for answer in answers} == {"refresh-2"}
    assert {answer.json()["refresh_token"] for answer in answers} == {""}
    assert [each.refresh_token for each in auth.requests if hasattr(each, "refresh_token")] == ["refresh-1"]
    late = await client.post("/api/v1/auth/refresh", json={"refresh_token": "refresh-1"})
    assert late.status_code == 401
    await client.aclose()


async def test_a_tab_that_had_not_seen_the_answer_gets_it_too_and_nobody_else(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = await sign_in(gateway)
    before = {**headers_of(client), "user-agent": "browser"}
    assert (await gateway.client.post("/api/v1/auth/refresh", json={}, headers=before)).status_code == 200
    late = await gateway.client.post("/api/v1/auth/refresh", json={}, headers=before)
    assert (late.status_code, late.cookies["espalier_refresh"]) == (200, "refresh-2")
    thief = await gateway.client.post("/api/v1/auth/refresh", json={}, headers={**before, "user-agent": "other"})
    assert thief.status_code == 401

    monkeypatch.setattr(renewals, "KEPT_SECONDS", 0)
    gateway.fakes["auth"].refresh_tokens = {"refresh-3"}
    before["cookie"] = before["cookie"].replace("refresh-1", "refresh-3")
    assert (await gateway.client.post("/api/v1/auth/refresh", json={}, headers=before)).status_code == 200
    assert (await gateway.client.post("/api/v1/auth/refresh", json={}, headers=before)).status_code == 401
    await client.aclose()


def headers_of(client: httpx.AsyncClient) -> dict[str, str]:
    """What the browser sends of its session now."""
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    return {"cookie": cookies, "x-csrf-token": client.cookies["espalier_csrf"]}


async def test_a_refresh_without_any_token_is_401(gateway: RunningGateway) -> None:
    answer = await gateway.client.post("/api/v1/auth/refresh", json={})
    assert answer.status_code == 401


async def test_a_client_with_tokens_refreshes_by_body(gateway: RunningGateway) -> None:
    answer = await gateway.client.post("/api/v1/auth/refresh", json={"refresh_token": "refresh-1"})
    assert answer.json()["refresh_token"] == "refresh-2"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
async def test_a_foreign_page_may_not_change_anything(gateway: RunningGateway, origin: str) -> None:
    answer = await gateway.client.post(LOGIN, json=ADA, headers={"origin": origin})
    assert (answer.status_code, answer.json()["reason"]) == (403, "ORIGIN_REFUSED")
    assert not gateway.fakes["auth"].requests
    assert "access-control-allow-origin" not in answer.headers


async def test_the_platforms_own_pages_may(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(public_url="https://espalier.example.org")
    for origin in ("https://espalier.example.org", f"http://{gateway.address}"):
        answer = await gateway.client.post(LOGIN, json=ADA, headers={"origin": origin})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "a@localhost", "[::", ""]
)
async def test_a_foreign_host_name_is_refused(gateway: RunningGateway, host: str) -> None:
    answer = await gateway.client.get("/api/v1/me", headers={"host": host})
    assert (answer.status_code, answer.json()["reason"]) == (400, "HOST_REFUSED")


async def test_two_host_names_are_refused(gateway: RunningGateway) -> None:
    # By hand: no client of good manners sends this.
    reader, writer = await asyncio.open_connection(gateway.client.base_url.host, gateway.client.base_url.port)
    writer.write(b"GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HOST_REFUSED" in answer


async def test_allowed_hosts_loopback_and_probes_are_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(allowed_hosts=("espalier.lan",), public_url="https://espalier.example.org")
    for host in ("espalier.lan", "ESPALIER.LAN:8080", "localhost:1", "[::1]:8080", "espalier.example.org"):
        answer = await gateway.client.get("/.well-known/jwks.json", headers={"host": host})
        assert answer.status_code == 200
    answer = await gateway.client.get("/healthz", headers={"host": "10.1.2.3:8080"})
    assert answer.status_code == 200


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer a b", "Bearer " + "x" * 9000, "Bearer é"])
async def test_a_malformed_authorization_header_is_401(gateway: RunningGateway, value: Any) -> None:
    answer = await gateway.client.get("/api/v1/me", headers={"authorization": value.encode("latin-1")})
    assert answer.status_code == 401


async def test_two_authorization_headers_sign_nobody_in(gateway: RunningGateway) -> None:
    good, bad = ("authorization", f"Bearer {gateway.token()}"), ("authorization", "Bearer nonsense")
    assert (await gateway.client.get("/api/v1/me", headers=[good])).status_code == 200
    for both in ([good, bad], [bad, good], [good, good]):
        assert (await gateway.client.get("/api/v1/me", headers=both)).status_code == 401


async def test_a_public_call_is_not_refused_for_a_broken_token(gateway: RunningGateway) -> None:
    for value in ("Basic YTpi", "Bearer nonsense"):
        answer = await gateway.client.post(LOGIN, json=ADA, headers={"authorization": value})
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/docs", "/openapi.json", "/api/v1/me", "/api/v1/nothing", "/x.png"])
async def test_every_answer_carries_the_security_headers(gateway: RunningGateway, path: str) -> None:
    answer = await gateway.client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "base-uri 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers
    if path.startswith("/api/"):
        assert answer.headers["cache-control"] == "no-store"


async def test_a_browser_that_signed_in_before_says_so_at_the_next_sign_in(gateway: RunningGateway) -> None:
    first = await gateway.client.post(LOGIN, json={**ADA, "cookie": True})
    await gateway.client.post(LOGIN, json={**ADA, "cookie": True})
    await gateway.client.post(LOGIN, json=ADA)

    assert first.json()["device_token"] == ""
    device = next(text for text in first.headers.get_list("set-cookie") if text.startswith("espalier_device"))
    assert "HttpOnly" in device
    assert "SameSite=Strict" in device
    assert [request.device_token for request in gateway.fakes["auth"].requests] == ["", "device-1", ""]
