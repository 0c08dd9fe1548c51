"""RFC 8725 against the running services and the gateway: forged, stale and misshapen access tokens.

Most are signed with the platform's own key, so that it is the claim or the header that must be found wrong.
"""

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from forgery import Forger, encoded
from people import token_of, user
from platform_process import Api, Platform
from wire import Wire, all_rpcs, new_request

READS = {
    name: next(rpc for rpc in all_rpcs() if rpc.name == name)
    for name in ("GetMe", "ListRuns", "ListModels", "ListSessions", "ListEvaluations", "ListPrompts")
}
BIG = 1 << 20


def hs256(forger: Forger, secret: bytes) -> str:
    """Signed with the public key as the secret of HMAC, under the key's own id."""
    header = {**forger.header, "alg": "HS256"}
    signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(forger.claims).encode())}"
    return f"{signed}.{encoded(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def unsigned(forger: Forger, alg: str | None) -> str:
    header = {**forger.header, "alg": alg}
    if alg is None:
        del header["alg"]
    return f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(forger.claims).encode())}."


def with_number(forger: Forger, name: str, number: str) -> str:
    """A claim whose value is not what json.dumps would write."""
    text = json.dumps({**forger.claims, name: "HERE"}).replace('"HERE"', number)
    return forger.of(text.encode())


def wrong_headers(forger: Forger, trap: str) -> Iterator[tuple[str, str]]:
    public = forger.key.public_key()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": encoded(public.public_bytes_raw())}
    yield "alg none", unsigned(forger, "none")
    yield "alg NoNe", unsigned(forger, "NoNe")
    yield "alg absent", unsigned(forger, None)
    yield "alg none, signed", forger.token({**forger.header, "alg": "none"})
    yield "HS256 with the raw public key", hs256(forger, public.public_bytes_raw())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "HS256 with the public PEM", hs256(forger, pem)
    for kid in ("../../dev/null", "/dev/null", "' OR 1=1 --", "x' UNION SELECT 'AA' --", "", "a" * 500):
        yield f"kid {kid[:20]}", forger.token({**forger.header, "kid": kid})
    yield "kid is a list", forger.token({**forger.header, "kid": [forger.kid]})
    yield "kid absent", forger.token({"alg": "EdDSA", "typ": "at+jwt"})
    for name in ("jku", "x5u"):
        yield name, forger.token({**forger.header, name: f"http://{trap}/keys"})
    yield "jwk", forger.token({**forger.header, "jwk": jwk})
    yield "x5c", forger.token({**forger.header, "x5c": ["MIIB"]})
    yield "crit", forger.token({**forger.header, "crit": ["espalier"], "espalier": 1})
    yield "b64 false", forger.token({**forger.header, "b64": False, "crit": ["b64"]})
    for typ in ("JWT", "rt+jwt", "", None, ["at+jwt"]):
        yield f"typ {typ}", forger.token({**forger.header, "typ": typ})
    head = json.dumps(forger.header)[:-1].encode()
    yield "alg twice", forger.token(head + b', "alg": "none"}')
    yield "deep header", forger.token(head + b', "x": ' + b"[" * 2000 + b"]" * 2000 + b"}")


def wrong_claims(forger: Forger) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    for name in ("iss", "aud", "sub", "iat", "exp", "jti", "kind", "scope", "permissions"):
        yield f"{name} absent", forger.token(**{name: None})
    yield "aud of another", forger.token(aud="espalier-runner")
    yield "aud cut", forger.token(aud="espal")
    yield "aud among others", forger.token(aud=["espalier", "other"])
    yield "aud as keys", forger.token(aud={"espalier": 1})
    yield "iss of another", forger.token(iss="https://evil.example")
    yield "iss cut", forger.token(iss="espal")
    yield "iss as a list", forger.token(iss=["espalier"])
    yield "expired", forger.expired()
    yield "not yet valid", forger.token(nbf=now + 3600)
    yield "of the future", forger.token(iat=now + 600, exp=now + 1200)
    yield "lives for an hour", forger.token(iat=now, exp=now + 3600)
    yield "lives for 16 minutes", forger.token(iat=now, exp=now + 960)
    for number in ("1" + "0" * 400, "1e400", "NaN", "-Infinity", '"x"', f'"{now + 600}"', "{}", "[]", "true", "null"):
        yield f"exp {number[:12]}", with_number(forger, "exp", number)
        yield f"iat {number[:12]}", with_number(forger, "iat", number)
    payload = json.dumps(forger.claims)[:-1]
    yield "sub twice", forger.of(f'{payload}, "sub": "{forger.claims["sub"]}"}}'.encode())
    yield "exp twice", forger.of(f'{payload}, "exp": {now + 900}}}'.encode())
    yield "permissions as text", forger.token(permissions="*")
    yield "kind of nobody", forger.token(kind="root")
    yield "no object", forger.of(b"[]")
    yield "no JSON", forger.of(b"\xff\xfe")
    yield "deep payload", forger.of(b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}")


def wrong_spellings(forger: Forger, refresh_token: str) -> Iterator[tuple[str, str]]:
    good = forger.token()
    head, payload, signature = good.split(".")
    yield "cut", good[:-5]
    yield "without signature", f"{head}.{payload}."
    yield "two parts", f"{head}.{payload}"
    yield "four parts", f"{good}.{signature}"
    yield "padded", f"{good}=="
    yield "one more letter", f"{good}A"
    yield "another payload", f"{head}.{encoded(json.dumps({**forger.claims, 'sub': 'x'}).encode())}.{signature}"
    yield "SQL", "'UNION/**/SELECT/**/pg_sleep(5)--"
    yield "dots", "." * 100
    yield "refresh token", refresh_token
    yield "API key of nobody", "esp_" + "A" * 43
    yield "bearer of nothing", "null"


def check_refused(wire: Wire, tokens: Iterator[tuple[str, str]], *, everywhere: bool = False) -> None:
    accepted = []
    for name, token in tokens:
        for rpc in READS.values() if everywhere else [READS["GetMe"], READS["ListRuns"]]:
            for call in wire.transports(rpc):
                told = call(new_request(rpc), token)
                if told.code != "UNAUTHENTICATED":
                    accepted.append((name, rpc.full_name, told))
    assert accepted == []


def test_a_token_of_the_forger_is_good_when_nothing_is_wrong_with_it(wire: Wire, forger: Forger) -> None:
    """Or all the refusals below would show nothing."""
    for rpc in READS.values():
        assert [call(new_request(rpc), forger.token()).code for call in wire.transports(rpc)] == ["OK", "OK"]


def test_no_header_but_ours_is_accepted_and_none_is_followed(wire: Wire, forger: Forger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        check_refused(wire, wrong_headers(forger, f"127.0.0.1:{trap.getsockname()[1]}"), everywhere=True)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_no_claim_is_accepted_that_auth_would_not_write(wire: Wire, forger: Forger) -> None:
    check_refused(wire, wrong_claims(forger))


def test_no_token_of_another_shape_or_kind_is_accepted(wire: Wire, forger: Forger, platform: Platform) -> None:
    check_refused(wire, wrong_spellings(forger, platform.admin().refresh_token), everywhere=True)


def test_an_access_token_renews_no_session(platform: Platform) -> None:
    admin = platform.admin()
    answer = admin.http.post("/api/v1/auth/refresh", json={"refresh_token": token_of(admin)})
    assert answer.status_code in {400, 401}


def test_a_megabyte_of_token_is_refused_at_once(wire: Wire, forger: Forger, platform: Platform, viewer: Api) -> None:
    for token in ("a" * BIG, f"{'a' * BIG}.b.c", forger.token(name="n" * BIG)):
        began = time.monotonic()
        answer = viewer.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code in {400, 401, 431}
        assert time.monotonic() - began < 20, "a slow machine; alone it takes milliseconds"
    assert wire.rest(READS["GetMe"], new_request(READS["GetMe"]), forger.token()).code == "OK"


@pytest.mark.parametrize("value", ["Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer  x y", "bearer a b", "Token x", "é"])
def test_another_way_to_sign_in_is_none(viewer: Api, value: str) -> None:
    answer = viewer.http.get("/api/v1/me", headers={"authorization": value.encode("latin-1")})
    assert answer.status_code == 401


def test_headers_that_name_a_user_and_tokens_in_the_query_sign_nobody_in(
    viewer: Api, platform: Platform, forger: Forger
) -> None:
    named = {"x-user-id": forger.claims["sub"], "x-forwarded-user": "admin", "x-auth-request-user": "admin"}
    assert viewer.http.get("/api/v1/me", headers={"authorization": "", **named}).status_code == 401
    token = forger.token()
    for name in ("access_token", "token", "api_key", "authorization"):
        asked = viewer.http.get("/api/v1/me", params={name: token}, headers={"authorization": ""})
        assert asked.status_code in {400, 401}
    for log in (platform.home / "log").glob("*.log"):
        assert token not in log.read_text("utf-8", "replace"), log.name


def test_a_user_cannot_speak_as_a_service(platform: Platform, wire: Wire) -> None:
    trainer = user(platform, "serge", "trainer")
    for name in ("CreateWorkload", "GetWorkload", "DeleteWorkload"):
        rpc = next(rpc for rpc in all_rpcs() if rpc.name == name)
        assert wire.grpc(rpc, new_request(rpc), token_of(trainer)).code == "PERMISSION_DENIED"


def test_the_signing_key_lies_nowhere_in_the_clear(platform: Platform, forger: Forger) -> None:
    raw = forger.key.private_bytes_raw()
    spelled = {raw, raw.hex().encode(), encoded(raw).encode()}
    files = [path for path in Path(platform.home).rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        with suppress(FileNotFoundError):  # a platform at work removes files too
            content = path.read_bytes()
            assert not any(form in content for form in spelled), path
