"""Users of the security tests."""

from platform_process import Api, Platform


def user(platform: Platform, name: str, role: str) -> Api:
    """A new user with one role, signed in."""
    password = f"the password of {name} 71"
    platform.admin().call("POST", "/api/v1/users", {"user": {"username": name, "roles": [role]}, "password": password})
    return platform.login(name, password)


def token_of(api: Api) -> str:
    """The access token that a client sends."""
    return api.token()
