"""What comes from an address that behaves badly is no provider's word: each answer is bounded and compared."""

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from espalier_auth.oidc import provider as module
from espalier_auth.oidc.errors import ProviderRefused, ProviderUnavailable, ProviderUntrusted
from espalier_auth.oidc.login_state import LoginStates
from espalier_auth.oidc.provider import Provider
from espalier_auth.oidc.providers import ProviderSettings

PENDING, _ = LoginStates(b"k" * 32).begin("one")
Answers = dict[str, tuple[int, bytes]]


class Hostile:
    """Answers each address as the test says; `pause` seconds before each."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: Answers = {}
        self.pause = 0.0
        self.asked: list[str] = []

    def discover(self, **changes: Any) -> None:
        document = {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/auth",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/jwks",
            **changes,
        }
        self.answers["/.well-known/openid-configuration"] = (200, json.dumps(document).encode())
        self.answers["/jwks"] = (200, b'{"keys": []}')


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            time.sleep(served.pause)
            status, body = served.answers.get(self.path, (404, b""))
            self.send_response(status)
            if status == 302:
                self.send_header("location", "http://127.0.0.1:1/")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hostile(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def provider(hostile: Hostile) -> AsyncIterator[Provider]:
    settings = ProviderSettings(name="one", display_name="One", issuer=hostile.address, client_id="espalier")
    made = Provider(settings, redirect_uri="http://127.0.0.1/login/callback")
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "https://login.example.org"}, "another issuer"),
        ({"issuer": "+/"}, "another issuer"),
        ({"token_endpoint": "http://login.example.org/token"}, "token_endpoint is no https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is no https"),
        ({"jwks_uri": None}, "jwks_uri is no https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is no https"),
        ({"userinfo_endpoint": ["x"]}, "userinfo_endpoint is no https"),
    ],
)
async def test_a_wrong_discovery_document_is_not_trusted(
    hostile: Hostile, provider: Provider, changes: dict[str, Any], said: str
) -> None:
    if changes.get("issuer") == "+/":
        changes = {"issuer": f"{hostile.address}/"}
    hostile.discover(**changes)
    with pytest.raises(ProviderUntrusted, match=said):
        await provider.authorization_url(PENDING)


@pytest.mark.parametrize(
    "answer", [(200, b"{" + b" " * (module.MAX_ANSWER_BYTES + 1) + b"}"), (302, b""), (500, b"{}"), (404, b"<html>")]
)
async def test_a_large_redirected_or_failed_answer_is_none(
    hostile: Hostile, provider: Provider, answer: tuple[int, bytes]
) -> None:
    hostile.discover()
    hostile.answers["/.well-known/openid-configuration"] = answer
    with pytest.raises(ProviderUnavailable, match="One cannot be asked"):
        await provider.authorization_url(PENDING)


async def test_a_slow_answer_is_waited_for_no_longer_than_said(
    hostile: Hostile, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    hostile.discover()
    hostile.pause = 20.0
    started = time.monotonic()
    with pytest.raises(ProviderUnavailable, match="does not answer"):
        await provider.authorization_url(PENDING)
    assert time.monotonic() - started < 15


async def test_what_is_known_is_asked_for_once(hostile: Hostile, provider: Provider) -> None:
    hostile.discover()
    for _ in range(5):
        assert (await provider.authorization_url(PENDING)).startswith(f"{hostile.address}/auth?")
    assert hostile.asked == ["/.well-known/openid-configuration", "/jwks"]


async def test_made_up_keys_do_not_make_us_ask_again_and_again(hostile: Hostile, provider: Provider) -> None:
    import jwt

    hostile.discover(id_token_signing_alg_values_supported=["RS256", "HS256", "none"])
    token = jwt.encode({"sub": "ada"}, "x" * 64, algorithm="HS256", headers={"kid": "made-up"})
    hostile.answers["/token"] = (200, json.dumps({"id_token": token}).encode())
    with pytest.raises(ProviderUntrusted, match="'HS256', which is not allowed"):
        await provider.identify("code", PENDING)

    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    token = jwt.encode({"sub": "ada"}, key, algorithm="RS256", headers={"kid": "made-up"})
    hostile.answers["/token"] = (200, json.dumps({"id_token": token}).encode())
    for _ in range(5):
        with pytest.raises(ProviderUntrusted, match="does not publish"):
            await provider.identify("code", PENDING)
    assert hostile.asked.count("/jwks") == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"id_token": 1}', b'{"id_token": null}'])
async def test_an_answer_without_an_id_token_is_not_trusted(hostile: Hostile, provider: Provider, body: bytes) -> None:
    hostile.discover()
    hostile.answers["/token"] = (200, body)
    with pytest.raises(ProviderUntrusted, match="no id_token"):
        await provider.identify("code", PENDING)


async def test_the_words_of_a_refusal_are_short_and_on_one_line(hostile: Hostile, provider: Provider) -> None:
    hostile.discover()
    said = {"error": "invalid_grant", "error_description": "a\nb\x1b[31m" + "c" * 5000}
    hostile.answers["/token"] = (400, json.dumps(said).encode())
    with pytest.raises(ProviderRefused, match="invalid_grant: a b") as refused:
        await provider.identify("code", PENDING)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 800
