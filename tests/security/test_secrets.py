"""No secret in any log, event, database, error or metric: marked ones go the main ways, then everything is read."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from belongings import Belongings
from people import confirm, token_of
from platform_process import Api, Platform
from psycopg2 import sql

MARK = "Qz7xK2mWv9"
WITH_DATABASE = ("auth", "training-orchestrator", "model-registry", "chat", "eval", "prompt")
SERVICES = (*WITH_DATABASE, "gateway")


@dataclass
class Planted:
    """Secrets by what they are, and the bodies of all refusals that were told on the way."""

    secrets: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def make(self, what: str) -> str:
        """A secret that is found again wherever it lands: a mark and the place it was given to."""
        self.secrets[what] = f"{MARK}-{what.replace(' ', '.')}-{len(self.secrets):03d}"
        return self.secrets[what]


@pytest.fixture(scope="module")
def planted(platform: Platform, owners: tuple[Belongings, Belongings]) -> Planted:
    """Every way on which a secret enters the platform, right and wrong."""
    planted = Planted()
    admin = platform.admin()
    sign_in(platform, planted, admin)
    stumble(planted, admin)
    kept = json.loads((platform.home / "secrets" / "secrets.json").read_text("utf-8"))
    planted.secrets |= {f"the platform's {name}": value for name, value in kept.items()}
    attempts = [path for path in platform.home.glob("artifacts/runs/*/attempts/*/*token*") if path.is_file()]
    planted.secrets |= {f"attempt token {path.parent}": path.read_text("utf-8").strip() for path in attempts}
    return planted


def sign_in(platform: Platform, planted: Planted, admin: Api) -> None:
    first, second = planted.make("first password"), planted.make("second password")
    body = {"user": {"username": "sonja", "roles": ["trainer"]}, "password": first}
    user_id = admin.call("POST", "/api/v1/users", body)["id"]
    planted.refusals.append(admin.http.post("/api/v1/users", json=body).text)
    sonja = platform.login("sonja", first)
    sonja.call("POST", "/api/v1/me/password", {"current_password": first, "new_password": second})
    sonja = platform.login("sonja", second)
    planted.secrets |= {"access token": token_of(sonja), "refresh token": sonja.refresh_token}
    renewed = sonja.call("POST", "/api/v1/auth/refresh", {"refresh_token": sonja.refresh_token})
    planted.secrets |= {"second access token": renewed["access_token"], "second refresh": renewed["refresh_token"]}
    again = sonja.http.post("/api/v1/auth/refresh", json={"refresh_token": sonja.refresh_token})
    planted.refusals.append(again.text)
    key(platform, planted, second)
    factor(platform, planted, second)
    link = admin.call("POST", f"/api/v1/users/{user_id}:resetPassword", {})["url"]
    planted.secrets["reset link"] = link.rsplit("=", 1)[-1].rsplit("/", 1)[-1]
    third = planted.make("third password")
    body = {"token": planted.secrets["reset link"], "new_password": third}
    admin.call("POST", "/api/v1/auth/reset-password", body)
    planted.refusals.append(admin.http.post("/api/v1/auth/reset-password", json=body).text)
    invited = admin.call("POST", "/api/v1/invitations", {"roles": ["tester"]})["url"]
    planted.secrets["invitation"] = invited.rsplit("=", 1)[-1].rsplit("/", 1)[-1]


def factor(platform: Platform, planted: Planted, password: str) -> None:
    """Secret, address and codes of a second factor, used, wrong and in the wrong place; removed at the end."""
    sonja = platform.login("sonja", password)
    begun = sonja.call("POST", "/api/v1/me/second-factor", {})
    planted.secrets |= {"secret of an authenticator": begun["secret"], "its address": begun["otpauth_uri"]}
    planted.secrets["the secret's bytes"] = base64.b32decode(begun["secret"]).hex()
    codes = confirm(sonja, begun["secret"]).json()["recovery_codes"]
    login = {"username": "sonja", "password": password}
    wrong = [
        {**login, "code": planted.make("wrong code")},
        {**login, "code": planted.make("long code") * 10},
        {**login, "codes": planted.make("misspelt code")},
        {**login, "code": [planted.make("code in a list")]},
        {"username": "sonja", "password": "wrong", "code": codes[0]},
        {"username": codes[1], "password": codes[2], "code": codes[3]},
        login,
    ]
    planted.refusals += [sonja.http.post("/api/v1/auth/login", json=body).text for body in wrong]
    for verb in ("remove", "newRecoveryCodes", "confirm"):
        body = {"code": planted.make(f"code to {verb}")}
        planted.refusals.append(sonja.http.post(f"/api/v1/me/second-factor:{verb}", json=body).text)
    assert sonja.http.post("/api/v1/auth/login", json={**login, "code": codes[4]}).is_success
    made = sonja.call("POST", "/api/v1/me/second-factor:newRecoveryCodes", {"code": codes[5]})["recovery_codes"]
    sonja.call("POST", "/api/v1/me/second-factor:remove", {"code": made[0]})
    shown = {f"recovery code {number}": code for number, code in enumerate([*codes, *made])}
    typed = {f"{what} as it is compared": code.replace("-", "").upper() for what, code in shown.items()}
    planted.secrets |= shown | typed


def key(platform: Platform, planted: Planted, password: str) -> None:
    sonja = platform.login("sonja", password)
    made = sonja.call("POST", "/api/v1/me/api-keys", {"name": "a key", "permissions": ["training.runs.list"]})
    planted.secrets["API key"] = made["key"]
    bearer = {"authorization": f"Bearer {made['key']}"}
    assert sonja.http.get("/api/v1/training/runs", headers=bearer).status_code == 200
    planted.refusals.append(sonja.http.get("/api/v1/users", headers=bearer).text)


def stumble(planted: Planted, admin: Api) -> None:
    """Secrets in the wrong place, as people put them there."""
    login = "/api/v1/auth/login"
    wrong = [
        {"json": {"username": "sonja", "password": planted.make("wrong password")}},
        {"json": {"username": "sonja", "password": [planted.make("password in a list")]}},
        {"json": {"username": "sonja", "password": planted.make("NUL password") + "\0"}},
        {"json": {"username": "sonja", "passwort": planted.make("misspelt password")}},
        {"content": planted.make("no JSON"), "headers": {"content-type": "application/json"}},
        {"json": {"username": "sonja", "password": planted.make("long password") * 200}},
        {"json": {"username": planted.make("password as username") + "!", "password": "x"}},
    ]
    planted.refusals += [admin.http.post(login, **request).text for request in wrong]
    for header in ("authorization", "x-api-key", "proxy-authorization", "cookie", "x-csrf-token"):
        value = planted.make(f"in {header}")
        value = f"Bearer sk-{value}" if header == "authorization" else value
        planted.refusals.append(admin.http.get("/api/v1/me", headers={"authorization": "", header: value}).text)
    for name in ("api_key", "access_token", "password"):
        asked = admin.http.get("/api/v1/training/runs", params={name: planted.make(f"query {name}")})
        planted.refusals.append(asked.text)
    weak = {"user": {"username": "weak", "roles": []}, "password": planted.make("weak")[:11]}
    planted.refusals.append(admin.http.post("/api/v1/users", json=weak).text)


def spellings(secret: str) -> Iterator[bytes]:
    """As it is, in hex, URL-coded, and in base64 at each of the three places it can begin."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield quote(secret, safe="").encode()
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        # The edges mix with what stands beside it.
        yield coded[4 if shift else 0 : len(coded) - 4]
        yield coded[4 if shift else 0 : len(coded) - 4].replace(b"+", b"-").replace(b"/", b"_")


def rows(platform: Platform) -> Iterator[tuple[str, bytes]]:
    """Every row of every table of every database, as a dump has it."""
    kept = json.loads((platform.home / "secrets" / "secrets.json").read_text("utf-8"))
    port = json.loads((platform.home / "run" / "ports.json").read_text("utf-8"))["postgres"]
    for name in WITH_DATABASE:
        address = {"host": "127.0.0.1", "port": port, "dbname": name, "user": name}
        with closing(psycopg2.connect(**address, password=kept[f"database/{name}"])) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in cursor.fetchall():
                copied = io.BytesIO()
                cursor.copy_expert(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table)), copied)
                yield f"{name}.{table}", copied.getvalue()


def content_of(path: Path) -> bytes:
    """Nothing when it has gone meanwhile: the bus at work removes files too."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def places(platform: Platform, planted: Planted) -> Iterator[tuple[str, bytes]]:
    for folder in ("log", "nats"):
        for path in sorted((platform.home / folder).rglob("*")):
            # The server's own configuration says who may connect; it is as secret as var/secrets.
            if path.is_file() and path.suffix != ".conf":
                yield str(path.relative_to(platform.home)), content_of(path)
    yield from rows(platform)
    yield "refusals", "\n".join(planted.refusals).encode()
    for service in SERVICES:
        yield f"/metrics of {service}", platform.metrics(service).encode()


def test_no_secret_is_found_anywhere(platform: Platform, planted: Planted) -> None:
    assert len(planted.secrets) > 40
    read = dict(places(platform, planted))
    assert b"sonja" in read["auth.users"]
    assert all(b"espalier_" in read[f"/metrics of {service}"] for service in SERVICES)
    forms = {form: what for what, secret in planted.secrets.items() for form in spellings(secret)}
    found = [(place, forms[form]) for place, content in read.items() for form in forms if form in content]
    assert found == []


def test_no_password_hash_leaves_its_database(platform: Platform, planted: Planted, owners: object) -> None:
    for path in (platform.home / "log").iterdir():
        assert b"$argon2id$" not in path.read_bytes(), path
    for folder in ("nats",):
        for path in (platform.home / folder).rglob("*"):
            assert not path.is_file() or b"$argon2id$" not in content_of(path), path


def test_secrets_lie_in_files_that_their_owner_alone_reads(platform: Platform) -> None:
    for path in [platform.home / "secrets" / "secrets.json", platform.home / "admin-password"]:
        assert path.stat().st_mode & 0o077 == 0, path
    for folder in ("artifacts", "log", "run", "secrets", "postgres"):
        assert (platform.home / folder).stat().st_mode & 0o077 == 0, folder


def test_the_environment_of_a_training_carries_no_secret_of_a_service(platform: Platform) -> None:
    kept = json.loads((platform.home / "secrets" / "secrets.json").read_text("utf-8"))
    secrets = [value for name, value in kept.items() if not name.startswith("nats/runner")]
    for path in platform.home.glob("artifacts/runs/**/*"):
        if path.is_file() and path.suffix in {".yaml", ".json", ".log", ".jsonl"}:
            content = path.read_text("utf-8", "replace")
            assert not any(secret in content for secret in secrets), path
