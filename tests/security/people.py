"""Users of the security tests."""

import base64
import time

from platform_process import Api, Platform

from espalier_auth.second_factor.codes import STEP_SECONDS, code_of


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


def code_now(secret: str) -> str:
    """What an authenticator with this secret shows at the moment; good for half a minute and more."""
    return code_of(base64.b32decode(secret), int(time.time() // STEP_SECONDS))


def enrol(api: Api) -> list[str]:
    """Gives a user a second factor; his recovery codes, which need no waiting for the next code."""
    begun = api.call("POST", "/api/v1/me/second-factor", {})
    confirmed = api.call("POST", "/api/v1/me/second-factor:confirm", {"code": code_now(begun["secret"])})
    return list(confirmed["recovery_codes"])
