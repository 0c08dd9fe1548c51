"""The audit log over the whole platform: who was refused where, by every filter, over REST and the command line."""

import json
from typing import Any

import httpx
import psutil
from platform_process import Api, Platform, jsonl, until

PASSWORD = "a quiet green lamp"
EVENTS = "/api/v1/audit-events"


def events(admin: Api, *, count: int = 1, **wanted: Any) -> list[dict[str, Any]]:
    """The events that match, as soon as there are so many."""

    def found() -> list[dict[str, Any]] | None:
        page = admin.get(EVENTS, page_size=200, **wanted)["events"]
        return page if len(page) >= count else None

    return until(found, what=f"{count} events of {wanted}")


def stranger(platform: Platform, address: str) -> httpx.Client:
    """Somebody at another address of this machine, from where nothing was refused yet in this minute."""
    return httpx.Client(base_url=platform.url, transport=httpx.HTTPTransport(local_address=address), timeout=60)


def test_what_the_gateway_itself_refuses_is_in_the_log_and_many_times_are_one_line_more(
    platform: Platform, admin: Api
) -> None:
    with stranger(platform, "127.0.0.2") as anybody:
        answers = [
            anybody.post("/api/v1/auth/login", json={}, headers={"origin": "https://evil.example"}) for _ in range(50)
        ]
        large = anybody.post(
            "/api/v1/auth/login", content=b"{" + b" " * (5 << 20), headers={"content-type": "application/json"}
        )
        broken = anybody.get("/api/v1/users", headers={"authorization": "Basic YTpi"})
    assert [answers[0].status_code, large.status_code, broken.status_code] == [403, 413, 401]
    (foreign,) = events(admin, request_id=answers[0].headers["x-request-id"])
    assert (foreign["service"], foreign["action"], foreign["reason"]) == (
        "gateway",
        "gateway/request",
        "ORIGIN_REFUSED",
    )
    assert foreign["address"] == "127.0.0.2"
    (told,) = events(admin, request_id=large.headers["x-request-id"])
    assert (told["action"], told["reason"]) == ("espalier.auth.v1.AuthService/Login", "BODY_TOO_LARGE")
    (told,) = events(admin, request_id=broken.headers["x-request-id"])
    assert (told["action"], told["target"]) == ("espalier.auth.v1.UserService/ListUsers", "users")
    # Those after the first are counted and told every few seconds: a gateway that is killed tells nothing at its end.
    told = {"address": "127.0.0.2", "query": "ORIGIN_REFUSED"}

    def counts_of_all() -> list[int] | None:
        counts = [json.loads(event["after"]).get("again") or 1 for event in events(admin, **told)]
        return counts if sum(counts) == 50 else None

    counts = until(counts_of_all, what="all that was refused")
    assert len(counts) <= 25
    gateway = psutil.Process(platform.pid("gateway"))
    gateway.kill()
    psutil.wait_procs([gateway], timeout=120)
    platform.up()
    assert until(counts_of_all, what="the same after its end") == counts


def test_a_quota_that_refuses_is_one_line(platform: Platform, admin: Api) -> None:
    user = admin.call(
        "POST", "/api/v1/users", {"user": {"username": "quentin", "roles": ["trainer"]}, "password": PASSWORD}
    )
    quota = {"user_id": user["id"], "kind": "USAGE_KIND_STORED_BYTES", "amount": 1}
    admin.call("POST", "/api/v1/quotas", quota)
    quentin = platform.login("quentin", PASSWORD, address="127.0.0.4")
    dataset = quentin.call("POST", "/api/v1/training/datasets", {"name": "too much"})
    upload = quentin.upload("train.jsonl", jsonl([{"text": "more than a byte"}]))
    body = {"files": [{"split": "train", "upload_id": upload}]}
    answer = quentin.http.post(f"/api/v1/training/datasets/{dataset['id']}/versions", json=body)
    assert answer.status_code == 429
    request_id = answer.headers["x-request-id"]
    (event,) = events(admin, request_id=request_id)
    assert (event["service"], event["reason"]) == ("training-orchestrator", "QUOTA_EXCEEDED")
    # Another event, told later, has arrived: had there been a second line of this one, it would have too.
    later = admin.http.post("/api/v1/users", json={"user": {"username": "quentin", "roles": []}, "password": PASSWORD})
    events(admin, request_id=later.headers["x-request-id"])
    assert len(events(admin, request_id=request_id)) == 1


def test_every_filter_is_there_over_rest(platform: Platform, admin: Api) -> None:
    made = admin.http.post(
        "/api/v1/users", json={"user": {"username": "philippa", "roles": ["viewer"]}, "password": PASSWORD}
    )
    user, request_id = made.json(), made.headers["x-request-id"]
    philippa = platform.login("philippa", PASSWORD, address="127.0.0.5")
    refused = philippa.http.get("/api/v1/users")
    assert refused.status_code == 403
    (event,) = events(admin, request_id=request_id)
    assert json.loads(event["after"])
    (refusal,) = events(admin, request_id=refused.headers["x-request-id"])
    mine = {"actor": "philippa"}
    for wanted, expected in (
        ({"actor": user["id"]}, refusal),
        ({**mine, "action": "espalier.auth.v1.UserService/"}, refusal),
        ({**mine, "target": "users"}, refusal),
        ({"target": f"users/{user['id']}"}, event),
        ({**mine, "result": "AUDIT_RESULT_REFUSED"}, refusal),
        ({**mine, "address": "127.0.0.5"}, refusal),
        ({**mine, "query": "listusers"}, refusal),
        ({**mine, "start_time": refusal["time"]}, refusal),
        ({"target": f"users/{user['id']}", "end_time": refusal["time"]}, event),
        ({**mine, "address": "127.0.0.5", "result": "AUDIT_RESULT_REFUSED", "query": "denied"}, refusal),
    ):
        assert expected["id"] in [found["id"] for found in events(admin, **wanted)], wanted
    for wanted in (
        {**mine, "address": "192.0.2.1"},
        {**mine, "action": "espalier.chat."},
        {**mine, "target": "training/"},
        {**mine, "end_time": "2020-01-01T00:00:00Z"},
        {**mine, "query": "nonsense"},
        {"request_id": "nonsense"},
    ):
        assert not admin.get(EVENTS, **wanted)["events"], wanted


def test_pages_of_a_filter_follow_one_another_and_the_command_line_has_them_all(platform: Platform, admin: Api) -> None:
    # Of somebody who signs in here alone, or others' sign-ins would come in between.
    admin.call("POST", "/api/v1/users", {"user": {"username": "loginus", "roles": ["viewer"]}, "password": PASSWORD})
    for _ in range(3):
        platform.login("loginus", PASSWORD)
    wanted = {"action": "espalier.auth.v1.AuthService/Login", "actor": "loginus"}
    whole = [event["id"] for event in events(admin, count=3, **wanted)]
    paged, token = [], ""
    while True:
        page = admin.get(EVENTS, page_size=2, page_token=token, **wanted)
        paged += [event["id"] for event in page["events"]]
        if not (token := page["next_page_token"]):
            break
    assert paged == whole
    platform.command("login", "--username", "admin", "--password-file", str(platform.home / "admin-password"))
    listed = json.loads(platform.command("audit", "list", "--action", wanted["action"], "-o", "json").stdout)
    assert {event["action"] for event in listed} == {wanted["action"]}
    exported = platform.command("audit", "export", "--format", "jsonl", "--address", "127.0.0.1").stdout.splitlines()
    assert {json.loads(line)["address"] for line in exported} == {"127.0.0.1"}
    assert "The chain is whole" in platform.command("audit", "verify").stdout


def test_refusals_of_the_gateway_wait_for_auth(platform: Platform, admin: Api) -> None:
    platform.kill("auth")
    with stranger(platform, "127.0.0.3") as anybody:
        answer = anybody.get("/api/v1/me", headers={"host": "rebound.example"})
    assert answer.status_code == 400
    platform.up()
    (event,) = events(admin, request_id=answer.headers["x-request-id"])
    assert event["reason"] == "HOST_REFUSED"
    # What comes after this test finds a gateway that checks sign-ins again.
    until(
        lambda: True if admin.http.get("/api/v1/files/none").status_code == 404 else None,
        what="the gateway to check a sign-in",
    )
