"""What ends at the provider ends here: sessions, their tokens, and sign-ins that are on their way."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from sqlalchemy import select

from espalier.auth.v1 import audit_pb2, oidc_pb2, service_pb2
from espalier_auth.models import LoginSession
from espalier_auth.oidc.errors import LoginExpired, LogoutRefused
from espalier_auth.oidc.logout_token import EVENT, Logout, verify_logout_token
from espalier_auth.oidc.provider_sessions import end_sessions, note_session
from espalier_auth.oidc.providers import ProviderSettings
from espalier_auth.oidc.signed_token import TokenError, Trust
from espalier_common.db import utc_now
from espalier_common.tables import outbox

from .provider_process import ADA, RealProvider, Relying, StartOidc, reason, running_provider

ISSUER = "https://login.example.org"
TRUST = Trust(issuer=ISSUER, client_id="espalier", algorithms=frozenset({"ES256"}))
PROVIDER = ProviderSettings(name="corporate", issuer=ISSUER, client_id="espalier")


@pytest.fixture(scope="module")
def sent() -> Iterator[list[str]]:
    """Logout tokens as the provider posts them, the newest last; its address stands first."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["content-type"] == "application/x-www-form-urlencoded"
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            tokens.extend(parse_qs(body)["logout_token"])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tokens.append(f"http://127.0.0.1:{server.server_address[1]}/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield tokens
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def provider(sent: list[str]) -> Iterator[RealProvider]:
    with running_provider(backchannel_logout_uri=sent[0]) as running:
        yield running


@pytest.fixture
async def browsers() -> AsyncIterator[list[httpx.AsyncClient]]:
    made = [httpx.AsyncClient(trust_env=False, timeout=60) for _ in range(2)]
    yield made
    for each in made:
        await each.aclose()


@pytest.mark.slow
async def test_a_session_ends_with_that_at_the_provider_and_no_other_does(
    start_oidc: StartOidc, sent: list[str], browsers: list[httpx.AsyncClient]
) -> None:
    relying = await start_oidc()
    relying.provider.put("sub-71", **ADA)
    here, there = [await relying.finish(await relying.answer("sub-71", browser=each)) for each in browsers]
    await relying.provider.sign_out(browsers[0])
    token = sent[-1]

    assert await end(relying, token) == ""
    assert await reason(refresh(relying, here.refresh_token)) == "INVALID_REFRESH_TOKEN"
    await refused_within(5.0, relying, here.access_token)
    assert await reason(refresh(relying, there.refresh_token)) == ""
    # The same once more, one that somebody else made, one of another kind, and what is none.
    forged = jwt.encode(claims_of(token), "x" * 32, headers={"typ": "logout+jwt"})
    for wrong in (token, forged, there.access_token, "nonsense"):
        assert await end(relying, wrong) == "OIDC_LOGOUT_NOT_TRUSTED"
    assert await end(relying, token, provider="another") == "IDENTITY_PROVIDER_NOT_FOUND"
    # Told with whose session it was, and whatever it ended.
    label = f"login_sessions/{claims_of(here.access_token)['sid']}"
    after = json.loads((await told_of(relying)).after)
    user_id = claims_of(here.access_token)["sub"]
    assert after[label] == {"user_id": user_id, "revoked_reason": "ENDED_BY_PROVIDER"}
    assert after["identity_providers/corporate"] == {"sessions_ended": 1}
    # Whoever signs in again is in.
    again = await relying.finish(await relying.answer("sub-71", browser=browsers[0]))
    assert await reason(refresh(relying, again.refresh_token)) == ""


async def test_which_sessions_a_token_is_about(auth: Any) -> None:
    names = {"named": ("ada", "s-1"), "another": ("ada", "s-2"), "unnamed": ("ada", ""), "foreign": ("ben", "s-3")}
    begun: dict[str, str] = {}
    for name, (subject, sid) in names.items():
        begun[name] = await begin(auth, sub=subject, sid=sid)

    assert ended_by(auth, begun, subject="ben", sid="s-1") == []
    assert ended_by(auth, begun, sid="s-3") == ["foreign"]
    assert ended_by(auth, begun, sid="s-3") == []
    assert ended_by(auth, begun, subject="ada", sid="s-1") == ["named", "unnamed"]
    assert ended_by(auth, begun, subject="ada") == ["another"]


@pytest.mark.parametrize(
    ("logout", "is_over"),
    [
        ({"subject": "ada"}, True),
        ({"sid": "s-1"}, True),
        ({"subject": "ada", "sid": "s-1"}, True),
        ({"subject": "ada", "sid": "s-2"}, False),
        ({"subject": "ben"}, False),
        ({"subject": "ada", "ago": 60}, False),
    ],
)
async def test_a_sign_in_that_was_on_its_way_begins_no_session(
    auth: Any, logout: dict[str, Any], is_over: bool
) -> None:
    made_at = int(time.time())
    ended_by(auth, {}, **logout)
    if is_over:
        with pytest.raises(LoginExpired):
            await begin(auth, sub="ada", sid="s-1", iat=made_at)
    else:
        await begin(auth, sub="ada", sid="s-1", iat=made_at)


async def test_a_token_is_followed_once(auth: Any) -> None:
    logout = Logout(token_id="one", subject="ada", sid="", issued_at=utc_now())
    with auth.database.transaction() as session:
        end_sessions(session, PROVIDER, logout)
    with pytest.raises(LogoutRefused, match="came before"), auth.database.transaction() as session:
        end_sessions(session, PROVIDER, logout)


@pytest.mark.parametrize(
    ("claims", "header", "said"),
    [
        ({}, {"typ": "JWT"}, "typ"),
        ({}, {"typ": None}, "typ"),
        ({"events": None}, {}, "events"),
        ({"events": [EVENT]}, {}, "events"),
        ({"events": {EVENT: True}}, {}, "events"),
        ({"events": {"https://example.org/other": {}}}, {}, "events"),
        ({"nonce": "n"}, {}, "nonce"),
        ({"jti": None}, {}, "jti"),
        ({"jti": ""}, {}, "valid|jti"),
        ({"sub": None}, {}, "sub, sid"),
        ({"sub": 7}, {}, "valid|sub"),
        ({"sid": "a\u0000b"}, {}, "sub, sid"),
        ({"sid": ["s"]}, {}, "sub, sid"),
        ({"iss": "https://evil.example.org"}, {}, "issuer"),
        ({"aud": "another"}, {}, "[Aa]udience"),
        ({"exp": -120}, {}, "expired"),
        ({"exp": None}, {}, "exp"),
        ({"iat": None}, {}, "iat"),
        ({"iat": -3600}, {}, "too old"),
        ({"iat": 600}, {}, "not yet valid"),
    ],
)
def test_a_wrong_token_ends_nothing(claims: dict[str, Any], header: dict[str, Any], said: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    keys = [{**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "one", "use": "sig"}]
    now = int(time.time())
    right = {"iss": ISSUER, "aud": "espalier", "sub": "ada", "jti": "1", "events": {EVENT: {}}, "iat": now, "exp": 120}

    def signed(claims: dict[str, Any], header: dict[str, Any]) -> str:
        whole = right | claims
        whole = {name: now + value if name == "exp" and value is not None else value for name, value in whole.items()}
        if (iat := claims.get("iat")) is not None:
            whole["iat"] = now + iat
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, key, algorithm="ES256", headers={"kid": "one", "typ": "logout+jwt"} | header)

    assert verify_logout_token(signed({}, {}), keys, TRUST).subject == "ada"
    with pytest.raises(TokenError, match=said):
        verify_logout_token(signed(claims, header), keys, TRUST)


async def begin(auth: Any, **claims: Any) -> str:
    """A session that began at the provider; its id."""
    token = (await auth.login()).access_token
    session_id = str(claims_of(token)["sid"])
    with auth.database.transaction() as session:
        note_session(session, session_id, PROVIDER, {"iat": int(time.time()), **claims})
    return session_id


def ended_by(auth: Any, begun: dict[str, str], *, subject: str = "", sid: str = "", ago: float = 0) -> list[str]:
    """Names of the sessions that a token ends."""
    living = living_of(auth, begun)
    logout = Logout(
        token_id=f"{time.monotonic_ns()}", subject=subject, sid=sid, issued_at=utc_now() - timedelta(seconds=ago)
    )
    with auth.database.transaction() as session:
        end_sessions(session, PROVIDER, logout)
    return sorted(living - living_of(auth, begun))


def living_of(auth: Any, begun: dict[str, str]) -> set[str]:
    with auth.database.transaction() as session:
        return {name for name, id in begun.items() if not session.get_one(LoginSession, id).revoked_reason}


async def end(relying: Relying, token: str, *, provider: str = "corporate") -> str:
    request = oidc_pb2.EndProviderSessionsRequest(provider=provider, logout_token=token)
    return await reason(relying.stub().EndProviderSessions(request))


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


async def told_of(relying: Relying) -> audit_pb2.AuditEvent:
    """The event of the one logout that ended something, as soon as it is on its way to the audit log."""
    wanted = select(outbox.c.payload).where(outbox.c.subject == "espalier.auth.audit")
    async with asyncio.timeout(60):
        while True:
            with relying.auth.database.transaction() as session:
                events = [audit_pb2.AuditEvent.FromString(bytes(each)) for each in session.scalars(wanted)]
            about = [event for event in events if event.action.endswith("/EndProviderSessions")]
            if found := [event for event in about if "ENDED_BY_PROVIDER" in event.after]:
                return found[0]
            await asyncio.sleep(0.05)


async def refresh(relying: Relying, token: str) -> None:
    await relying.auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=token))


async def refused_within(seconds: float, relying: Relying, token: str) -> None:
    """Less the time that asking takes on a slow machine."""
    asking, slowest, started = relying.auth.users(token), 0.0, time.monotonic()
    async with asyncio.timeout(60):
        while True:
            asked = time.monotonic()
            if await reason(asking.GetMe(service_pb2.GetMeRequest())):
                break
            await asyncio.sleep(0.05)
            slowest = max(slowest, time.monotonic() - asked)
    assert time.monotonic() - started - 2 * slowest < seconds
