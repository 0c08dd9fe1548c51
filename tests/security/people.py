"""Users of the security tests."""

import httpx
from platform_process import Api, Platform

from espalier_common.testing.authenticator import codes_of


def user(platform: Platform, name: str, role: str) -> Api:
    """A new user with one role, signed in."""
    password = password_of(name)
    platform.admin().call("POST", "/api/v1/users", {"user": {"username": name, "roles": [role]}, "password": password})
    return platform.login(name, password)


def password_of(name: str) -> str:
    """The password of a user that `user` made."""
    return f"the password of {name} 71"


def token_of(api: Api) -> str:
    """The access token that a client sends."""
    return api.token()


def confirm(api: Api, secret: str) -> httpx.Response:
    """The answer to the code of an authenticator that is being enrolled."""
    for code in codes_of(secret):
        answer = api.http.post("/api/v1/me/second-factor:confirm", json={"code": code})
        if "SECOND_FACTOR_WRONG" not in answer.text:
            break
    return answer


def enrol(api: Api) -> list[str]:
    """Gives a user a second factor; his recovery codes, which need no waiting for the next code."""
    begun = api.call("POST", "/api/v1/me/second-factor", {})
    confirmed = confirm(api, begun["secret"])
    assert confirmed.is_success, confirmed.text
    return list(confirmed.json()["recovery_codes"])
