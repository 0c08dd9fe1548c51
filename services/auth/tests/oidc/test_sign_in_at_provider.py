"""Signing in at a real provider: what is asked, and which answers count."""

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc.aio
import pytest

from espalier.auth.v1 import oidc_pb2
from espalier.auth.v1.service_pb2 import ListUsersRequest
from espalier_common.rpc.status import from_rpc_error

from .provider_process import ADA, SECRET, StartOidc, running_provider

pytestmark = pytest.mark.slow


async def test_the_list_of_providers_tells_no_secret(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    listed = await relying.stub().ListIdentityProviders(oidc_pb2.ListIdentityProvidersRequest())

    assert [(each.name, each.display_name) for each in listed.providers] == [("corporate", "Corporate login")]
    url = (await relying.begin()).authorization_url
    query = parse_qs(urlsplit(url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge"} <= set(query)
    assert SECRET not in url


async def test_an_answer_counts_once_in_the_browser_that_began(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-9", **ADA)
    fields = await relying.answer("sub-9")
    other = await relying.begin()

    assert (await relying.refusal({**fields, "binding": other.binding})).reason == "OIDC_LOGIN_EXPIRED"
    assert (await relying.refusal({**fields, "state": "x" * 43})).reason == "OIDC_LOGIN_EXPIRED"
    assert (await relying.refusal({**fields, "provider": "another"})).reason == "IDENTITY_PROVIDER_NOT_FOUND"
    assert (await relying.finish(fields)).access_token
    assert (await relying.refusal(fields)).reason == "OIDC_LOGIN_EXPIRED"


async def test_an_answer_of_another_issuer_is_refused(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-10", **ADA)
    for issuer in ("https://evil.example.org", ""):
        fields = {**await relying.answer("sub-10"), "issuer": issuer}
        assert (await relying.refusal(fields)).reason == "OIDC_ANSWER_NOT_TRUSTED"


async def test_a_code_of_another_sign_in_is_refused_by_pkce(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-11", **ADA)
    stolen, own = await relying.answer("sub-11"), await relying.answer("sub-11")

    error = await relying.refusal({**own, "code": stolen["code"]})
    assert error.reason == "OIDC_PROVIDER_REFUSED"
    assert "invalid_grant" in error.message


async def test_what_the_provider_refuses_is_told_in_its_words(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    error = await relying.refusal(await relying.answer("anybody", cancel=True))

    assert (error.code, error.reason) == ("UNAUTHENTICATED", "OIDC_PROVIDER_REFUSED")
    assert "Corporate login refused the sign-in (access_denied: End-User aborted interaction)" in error.message
    fields = {"provider": "corporate", "binding": (login := await relying.begin()).binding}
    state = parse_qs(urlsplit(login.authorization_url).query)["state"][0]
    assert (
        await relying.refusal({**fields, "state": state, "issuer": relying.provider.issuer})
    ).code == "INVALID_ARGUMENT"


async def test_a_wrong_client_secret_is_told_without_it(start_oidc: StartOidc) -> None:
    relying = await start_oidc(client_secret="another secret")
    relying.provider.put("sub-12", **ADA)

    error = await relying.refusal(await relying.answer("sub-12"))
    assert "invalid_client" in error.message
    assert "another secret" not in error.message


@pytest.mark.parametrize(
    ("client", "settings"),
    [
        ({"token_endpoint_auth_method": "client_secret_post"}, {"client_authentication": "client_secret_post"}),
        ({"token_endpoint_auth_method": "none", "client_secret": None}, {"client_secret": ""}),
    ],
)
async def test_clients_of_other_kinds_sign_in_too(
    start_oidc: StartOidc, client: dict[str, Any], settings: dict[str, Any]
) -> None:
    with running_provider(client=client) as other:
        relying = await start_oidc(other, **settings)
        other.put("sub-1", **ADA)
        assert (await relying.sign_in("sub-1")).username == "ada"


async def test_new_keys_of_the_provider_are_found(start_oidc: StartOidc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier_auth.oidc.provider.KEYS_PAUSE", 0.0)
    with running_provider() as rotating:
        relying = await start_oidc(rotating)
        rotating.put("sub-1", **ADA)
        before = await relying.sign_in("sub-1")
        rotating.rotate_keys()
        assert (await relying.sign_in("sub-1")).id == before.id


async def test_a_provider_that_is_away_is_told(start_oidc: StartOidc) -> None:
    with running_provider() as ending:
        relying = await start_oidc(ending)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await relying.begin()
    error = from_rpc_error(refused.value)
    assert (error.code, error.reason) == ("UNAVAILABLE", "OIDC_PROVIDER_UNAVAILABLE")
    assert "Corporate login" in error.message
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError):
            await relying.begin()
    assert time.monotonic() - started < 60
    # Passwords go on.
    assert await relying.auth.login()


async def test_a_sign_in_that_is_weaker_than_asked_for_lets_nobody_in_and_links_nothing(start_oidc: StartOidc) -> None:
    relying = await start_oidc(acr_values=["urn:example:two-factors", "urn:example:smartcard"])
    for account, acr in (("sub-61", "urn:example:two-factors"), ("sub-62", "urn:example:password"), ("sub-63", "")):
        relying.provider.put(
            account, **{**ADA, "preferred_username": account, "email": f"{account}@example.org"}, acr=acr
        )
    url = (await relying.begin()).authorization_url
    assert parse_qs(urlsplit(url).query)["acr_values"] == ["urn:example:two-factors urn:example:smartcard"]

    assert (await relying.sign_in("sub-61")).username == "sub-61"
    weak = await relying.refusal(await relying.answer("sub-62"))
    assert (weak.code, weak.reason) == ("UNAUTHENTICATED", "OIDC_SIGN_IN_TOO_WEAK")
    assert weak.metadata == {
        "acr": "urn:example:password", "acr_values": "urn:example:two-factors urn:example:smartcard"
    }  # fmt: skip
    unsaid = await relying.refusal(await relying.answer("sub-63"))
    assert "does not say how strong this sign-in was" in unsaid.message

    token = (await relying.auth.login()).access_token
    link = relying.stub(token).LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-62")))
    with pytest.raises(grpc.aio.AioRpcError, match="says that this sign-in was 'urn:example:password'"):
        await link
    names = [user.username for user in (await relying.auth.users(token).ListUsers(ListUsersRequest())).users]
    assert names == ["admin", "sub-61"]
