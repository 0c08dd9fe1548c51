"""Sessions over the whole platform: where one is signed in, and how soon an end holds on every service."""

import httpx
from platform_process import Api, Platform, within

PASSWORD = "a quiet green lamp"
SOON = 5.0  # seconds within which a change holds on every service
# One read of each service, and one that the gateway answers itself.
READS = (
    "/api/v1/me",
    "/api/v1/prompts",
    "/api/v1/chat/sessions",
    "/api/v1/evaluations",
    "/api/v1/training/runs",
    "/api/v1/models",
    "/api/v1/files/00000000-0000-4000-8000-000000000000",
)


def ends_everywhere(api: Api) -> None:
    """A token that was good is refused by every service, soon."""
    left = set(READS)

    def all_refuse() -> bool:
        left.difference_update([path for path in left if api.http.get(path).status_code == httpx.codes.UNAUTHORIZED])
        return not left

    within(SOON, all_refuse, what="the end of a token on every service")


def test_a_disabled_user_is_out_of_every_service_within_five_seconds(platform: Platform, admin: Api) -> None:
    user = admin.call(
        "POST", "/api/v1/users", {"user": {"username": "dora", "roles": ["trainer"]}, "password": PASSWORD}
    )
    dora = platform.login("dora", PASSWORD)
    assert {dora.http.get(path).status_code for path in READS} <= {200, 404}

    admin.call("PATCH", f"/api/v1/users/{user['id']}", {"disabled": True}, update_mask="disabled")
    ends_everywhere(dora)


def test_one_sees_where_one_is_signed_in_and_ends_it_there(platform: Platform, admin: Api) -> None:
    admin.call("POST", "/api/v1/users", {"user": {"username": "emil", "roles": ["trainer"]}, "password": PASSWORD})
    here, there = platform.login("emil", PASSWORD), platform.login("emil", PASSWORD)
    sessions = here.get("/api/v1/me/sessions")["sessions"]

    # What the gateway saw, not what auth sees of the gateway.
    assert {session["address"] for session in sessions} == {"127.0.0.1"}
    assert {session["device"] for session in sessions} == {"Python"}
    assert [session["current"] for session in sessions].count(True) == 1
    assert here.call("POST", "/api/v1/me/sessions:endOthers", {})["ended"] == 1
    ends_everywhere(there)
    assert here.http.get("/api/v1/me").status_code == httpx.codes.OK


def test_on_the_machine_whoever_lost_his_password_gets_a_link_for_another(platform: Platform, admin: Api) -> None:
    admin.call("POST", "/api/v1/users", {"user": {"username": "lost", "roles": ["viewer"]}, "password": PASSWORD})
    before = platform.login("lost", PASSWORD)
    link, _, token = platform.command("reset-password", "lost").stdout.strip().partition("#token=")
    assert link == f"{platform.url}/reset-password"

    chosen = {"token": token, "new_password": "a loud purple lamp"}
    httpx.post(f"{platform.url}/api/v1/auth/reset-password", json=chosen, timeout=60).raise_for_status()
    ends_everywhere(before)
    assert platform.login("lost", "a loud purple lamp").get("/api/v1/me")["user"]["username"] == "lost"
