"""Keys, roles and groups over the whole platform: REST, gRPC and the command line, and how soon a change holds."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from platform_process import ESPALIER, Api, Platform, within

from espalier.prompt.v1 import service_pb2, service_pb2_grpc

PASSWORD = "a quiet green lamp"
SOON = 5.0  # seconds within which a change holds on every service


@pytest.fixture(scope="module")
def people(platform: Platform, admin: Api) -> dict[str, Api]:
    """Three trainers; two of them share a group that lets them see each other's prompts."""
    role = {"name": "prompt-reader", "permissions": ["prompt.prompts.get", "prompt.prompts.list"], "scope": "group"}
    admin.call("POST", "/api/v1/roles", role)
    ids = {
        name: admin.call(
            "POST", "/api/v1/users", {"user": {"username": name, "roles": ["trainer"]}, "password": PASSWORD}
        )
        for name in ("mia", "ben", "eve")
    }
    members = [ids["mia"]["id"], ids["ben"]["id"]]
    admin.call("POST", "/api/v1/groups", {"name": "writers", "roles": ["prompt-reader"], "member_ids": members})
    signed_in = {name: platform.login(name, PASSWORD) for name in ids}
    for name, api in signed_in.items():
        api.call("POST", "/api/v1/prompts", {"name": f"of {name}", "text": "Say {{word}}."})
    return signed_in


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


def prompts(api: Api) -> list[str]:
    return sorted(prompt["name"] for prompt in api.get("/api/v1/prompts")["prompts"])


def test_who_shares_a_group_sees_what_the_others_own_and_leaves_it_within_seconds(
    platform: Platform, admin: Api, people: dict[str, Api]
) -> None:
    assert prompts(people["mia"]) == prompts(people["ben"]) == ["of ben", "of mia"]
    assert prompts(people["eve"]) == ["of eve"]

    (group,) = [found for found in admin.get("/api/v1/groups")["groups"] if found["name"] == "writers"]
    mia = people["mia"].get("/api/v1/me")["user"]["id"]
    before = people["ben"].token()

    def asks(token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.get(f"{platform.url}/api/v1/prompts", headers=headers, timeout=60).status_code

    path = f"/api/v1/groups/{group['id']}"
    admin.call("PATCH", path, {"member_ids": [mia]}, update_mask="member_ids")
    again = platform.login("ben", PASSWORD)
    within(SOON, lambda: prompts(again) == ["of ben"], what="the end of a membership")
    within(SOON, lambda: asks(before) == httpx.codes.UNAUTHORIZED, what="the end of the token from before")
    admin.call("PATCH", path, {"member_ids": group["member_ids"]}, update_mask="member_ids")


def test_a_key_works_over_rest_and_grpc_and_ends_everywhere_within_seconds(
    platform: Platform, people: dict[str, Api]
) -> None:
    eve = people["eve"]
    made = eve.call("POST", "/api/v1/me/api-keys", {"name": "nightly", "permissions": ["prompt.prompts.list"]})
    bearer = {"authorization": f"Bearer {made['key']}"}
    address = json.loads((platform.home / "run" / "ports.json").read_text("utf-8"))["prompt"]
    with (
        httpx.Client(base_url=platform.url, headers=bearer, timeout=60) as rest,
        grpc.insecure_channel(f"127.0.0.1:{address}") as channel,
    ):
        stub = service_pb2_grpc.PromptServiceStub(channel)

        def listed() -> Any:
            return stub.ListPrompts(service_pb2.ListPromptsRequest(), metadata=tuple(bearer.items()))

        assert [prompt["name"] for prompt in rest.get("/api/v1/prompts").json()["prompts"]] == ["of eve"]
        assert [prompt.name for prompt in listed().prompts] == ["of eve"]
        refused = rest.post("/api/v1/prompts", json={"name": "more", "text": "x"})
        assert (refused.status_code, "prompt.prompts.create" in refused.text) == (403, True)
        assert rest.post("/api/v1/me/api-keys", json={"name": "more"}).status_code == 403

        eve.call("DELETE", f"/api/v1/me/api-keys/{made['id']}")

        within(SOON, lambda: rest.get("/api/v1/prompts").status_code == 401, what="the end of the key over REST")
        # The service hears of it by itself, maybe after the gateway.
        within(SOON, lambda: code_of(listed) is grpc.StatusCode.UNAUTHENTICATED, what="the end of the key over gRPC")


def test_the_command_line_manages_keys_roles_and_groups(platform: Platform, admin: Api, people: dict[str, Api]) -> None:
    def espalier(*arguments: str) -> str:
        environment = {**platform.environment, "ESPALIER_TOKEN": admin.token(), "ESPALIER_SERVER": platform.url}
        done = subprocess.run([ESPALIER, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    espalier("roles", "create", "curator", "-p", "training.datasets.list", "--scope", "group")
    espalier("roles", "update", "curator", "-p", "training.datasets.list", "-p", "training.datasets.get")
    assert "training.datasets.get" in espalier("roles", "show", "curator")
    assert "Starts a training run." in espalier("roles", "permissions")
    espalier("groups", "create", "curators", "-r", "curator", "-m", "eve")
    explained = espalier("users", "explain", "eve", "-p", "training.datasets.get")
    assert "role trainer, group curators: role curator" in explained
    espalier("groups", "update", "curators", "--add", "mia", "--remove", "eve")
    assert "curators" in espalier("groups", "list")
    espalier("groups", "delete", "curators")
    espalier("roles", "delete", "curator")
    key = espalier("api-keys", "create", "of the command", "--days", "1").strip()
    assert key.startswith("esp_")
    assert key[-4:] in espalier("api-keys", "list")
    espalier("api-keys", "delete", "of the command")
