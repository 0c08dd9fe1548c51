"""OpenAI's own client at the platform: what it gets and is refused, and that what it used is in the ledger once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest
from belongings import Belongings
from people import token_of, user
from platform_process import Api, Platform, until

MODEL = "deployment-anna"
ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": "What do one and one make?"}], "seed": 7}
SOON = 60.0  # seconds until what was used is in the ledger, however slow the machine is
CREATE = "espalier.chat.v1.CompletionService/CreateCompletion"


@pytest.fixture(scope="module")
def olga(platform: Platform, owners: tuple[Belongings, Belongings]) -> Api:
    """Owns nothing and tests what Anna deployed."""
    assert owners
    return user(platform, "olga", "tester")


def key_of(api: Api, name: str, **fields: Any) -> tuple[str, str]:
    """A new API key: its id and itself."""
    made = api.call("POST", "/api/v1/me/api-keys", {"name": name, **fields})
    return made["id"], made["key"]


@contextmanager
def client(platform: Platform, key: str, *, address: str = "127.0.0.1") -> Iterator[openai.OpenAI]:
    with (
        httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as http,
        openai.OpenAI(
            base_url=f"{platform.url}/v1", api_key=key, max_retries=0, timeout=60, http_client=http
        ) as opened,
    ):
        yield opened


def used(admin: Api, api: Api) -> dict[str, float]:
    """What somebody used of the model over the API, by kind."""
    user_id = api.get("/api/v1/me")["user"]["id"]
    rows = admin.get("/api/v1/usage", user_id=user_id, model=MODEL, group_by=["source", "model"])["rows"]
    assert {row["source"] for row in rows} <= {"api"}
    return {row["kind"].removeprefix("USAGE_KIND_"): row["amount"] for row in rows}


def used_after(admin: Api, api: Api, *, requests: int) -> dict[str, float]:
    """The same once so many requests have arrived; more never do."""

    def arrived() -> dict[str, float] | None:
        found = used(admin, api)
        assert found.get("REQUESTS", 0) <= requests
        return found if found.get("REQUESTS") == requests else None

    return until(arrived, seconds=SOON, what=f"{requests} requests in the ledger")


def test_an_openai_client_lists_asks_and_streams_and_all_of_it_is_counted(
    platform: Platform, admin: Api, olga: Api, owners: tuple[Belongings, Belongings]
) -> None:
    deployment_id = owners[0].ids["deployment"]
    _, key = key_of(olga, "openai")
    with client(platform, key) as own:
        assert MODEL in [model.id for model in own.models.list()]
        assert own.models.retrieve(deployment_id).id == own.models.retrieve(MODEL).id == MODEL

        whole = own.chat.completions.create(**ASKED, max_tokens=3, extra_body={"nobody_knows": True})
        assert whole.model == MODEL
        assert whole.choices[0].message.role == "assistant"
        options: Any = {"include_usage": True}
        *_, last = own.chat.completions.create(**ASKED, max_tokens=3, stream=True, stream_options=options)
        assert whole.usage
        assert last.usage
        found = used_after(admin, olga, requests=2)
        assert found["TOKENS_IN"] == whole.usage.prompt_tokens + last.usage.prompt_tokens
        assert found["TOKENS_OUT"] == whole.usage.completion_tokens + last.usage.completion_tokens

        chunks = list(own.chat.completions.create(**ASKED, max_tokens=3, stream=True))
        assert all(chunk.choices for chunk in chunks), "the use was not asked for"
        found = used_after(admin, olga, requests=3)
        with own.chat.completions.create(**ASKED, stream=True) as stream:
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
        after = used_after(admin, olga, requests=4)
        assert after["TOKENS_IN"] > found["TOKENS_IN"]
        assert after["TOKENS_OUT"] > found["TOKENS_OUT"]

    with client(platform, token_of(olga)) as own:
        assert own.chat.completions.create(**{**ASKED, "model": deployment_id}, max_tokens=1).model == MODEL
    used_after(admin, olga, requests=5)


def test_what_is_wrong_is_of_the_class_that_its_programs_catch(platform: Platform, olga: Api) -> None:
    _, key = key_of(olga, "mistakes")
    with client(platform, key) as own:
        with pytest.raises(openai.NotFoundError) as missing:
            own.chat.completions.create(**{**ASKED, "model": "nobody"})
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            own.models.retrieve("nobody")
        with pytest.raises(openai.NotFoundError):
            own.embeddings.create(model=MODEL, input="x")
        with pytest.raises(openai.BadRequestError) as hot:
            own.chat.completions.create(**ASKED, temperature=9)
        assert hot.value.param == "temperature"
        with pytest.raises(openai.BadRequestError) as long:
            own.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x " * 5000}], stream=True)
        assert long.value.code == "context_length_exceeded"
        assert long.value.request_id
    with client(platform, "esp_" + "x" * 43) as nobody:
        for ask in (nobody.models.list, lambda: nobody.chat.completions.create(**ASKED)):
            with pytest.raises(openai.AuthenticationError) as unknown:
                ask()
            assert unknown.value.code == "invalid_api_key"


def test_a_key_reaches_as_far_over_the_openai_api_as_over_rest(platform: Platform, olga: Api, viewer: Api) -> None:
    _, listing = key_of(olga, "lists", permissions=["models.deployments.list"])
    with client(platform, listing) as own:
        assert own.models.list().data
        with pytest.raises(openai.PermissionDeniedError, match=r"chat\.completions\.create"):
            own.chat.completions.create(**ASKED)
    _, asking = key_of(olga, "asks", permissions=["chat.completions.create"])
    with client(platform, asking) as own:
        with pytest.raises(openai.PermissionDeniedError, match=r"models\.deployments\.list"):
            own.models.list()
        with pytest.raises(openai.PermissionDeniedError, match=r"models\.deployments\.use"):
            own.chat.completions.create(**ASKED)
    with client(platform, token_of(viewer)) as own, pytest.raises(openai.PermissionDeniedError):
        own.chat.completions.create(**ASKED)


def test_a_key_that_is_over_or_taken_back_opens_nothing_more(platform: Platform, olga: Api) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    _, expiring = key_of(olga, "expires", expire_time=soon)
    key_id, revoked = key_of(olga, "revoked")
    olga.call("DELETE", f"/api/v1/me/api-keys/{key_id}")

    def refused(own: openai.OpenAI) -> bool | None:
        try:
            own.models.list()
        except openai.AuthenticationError:
            return True
        return None

    for key in (revoked, expiring):
        with client(platform, key) as own:
            until(lambda own=own: refused(own), seconds=60, what="the end of the key")  # type: ignore[misc]
            with pytest.raises(openai.AuthenticationError):
                own.chat.completions.create(**ASKED)


def test_over_quota_it_is_told_which_and_until_when_and_the_audit_log_too(platform: Platform, admin: Api) -> None:
    quinn = user(platform, "quinn", "tester")
    # Enough for what is asked in the end, and not after what was asked before.
    quota = {"user_id": quinn.get("/api/v1/me")["user"]["id"], "kind": "USAGE_KIND_TOKENS_IN", "amount": 110}
    admin.call("POST", "/api/v1/quotas", {**quota, "period": "QUOTA_PERIOD_DAY"})
    _, key = key_of(quinn, "limited")
    # Of many refusals from one address within a minute only the first are told one by one.
    with client(platform, key, address="127.0.0.6") as own:
        own.chat.completions.create(**ASKED, max_tokens=2)
        for streams in (False, True):
            with pytest.raises(openai.RateLimitError) as refused:
                own.chat.completions.create(**ASKED, max_tokens=100, stream=streams)
    error = refused.value
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    assert "your quota for tokens a day" in error.message
    assert "begins anew at" in error.message
    assert 0 < int(error.response.headers["retry-after"]) <= 24 * 3600
    assert used_after(admin, quinn, requests=1)["TOKENS_IN"]

    def told() -> Any:
        found = admin.get("/api/v1/audit-events", request_id=error.request_id)["events"]
        return found[0] if found else None

    event = until(told, seconds=SOON, what="the refusal in the audit log")
    assert (event["action"], event["reason"]) == (CREATE, "QUOTA_EXCEEDED")
    assert "one and one" not in json.dumps(event)
