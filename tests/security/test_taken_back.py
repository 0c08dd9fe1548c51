"""What an administrator or the user himself takes back is over on every service within five seconds."""

from collections.abc import Callable

import pytest
from people import token_of, user
from platform_process import Api, Platform, within
from test_tokens import READS
from wire import Wire, new_request

SECONDS = 5.0
PASSWORD = "the password of {} 71"


def disable(admin: Api, own: Api, user_id: str) -> None:
    admin.call("PATCH", f"/api/v1/users/{user_id}", {"disabled": True}, update_mask="disabled")


def demote(admin: Api, own: Api, user_id: str) -> None:
    admin.call("PATCH", f"/api/v1/users/{user_id}", {"roles": ["viewer"]}, update_mask="roles")


def change_password(admin: Api, own: Api, user_id: str) -> None:
    username = own.get("/api/v1/me")["user"]["username"]
    body = {"current_password": PASSWORD.format(username), "new_password": "quite another one 72"}
    own.call("POST", "/api/v1/me/password", body)


def end_session(admin: Api, own: Api, user_id: str) -> None:
    (session,) = own.get("/api/v1/me/sessions")["sessions"]
    own.call("DELETE", f"/api/v1/me/sessions/{session['id']}")


def sign_out(admin: Api, own: Api, user_id: str) -> None:
    own.call("POST", "/api/v1/auth/logout", {"refresh_token": own.refresh_token})


@pytest.mark.parametrize(
    "take_back", [disable, demote, change_password, end_session, sign_out], ids=lambda action: str(action.__name__)
)
def test_an_access_token_is_over_everywhere_within_seconds(
    platform: Platform, wire: Wire, take_back: Callable[[Api, Api, str], None]
) -> None:
    own = user(platform, take_back.__name__.replace("_", "."), "trainer")
    token = token_of(own)

    def codes() -> set[str]:
        return {wire.grpc(rpc, new_request(rpc), token).code for rpc in READS.values()}

    assert codes() == {"OK"}
    take_back(platform.admin(), own, own.get("/api/v1/me")["user"]["id"])
    within(SECONDS, lambda: codes() == {"UNAUTHENTICATED"}, what="the end of the token")
    assert wire.rest(READS["ListRuns"], new_request(READS["ListRuns"]), token).code == "UNAUTHENTICATED"
