"""SQL in every text of every request: it is text, and nothing else. Page tokens are opaque and tamper-evident."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from fill import request_of, texts_in
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from people import token_of, user
from platform_process import Api, Platform
from wire import Wire, all_rpcs

SEED = 25
SLEEP_SECONDS = 40  # longer than any honest call takes on a slow machine
STRINGS = (
    "' OR '1'='1",
    "'; DROP TABLE users; DROP TABLE runs; --",
    f"' || (SELECT pg_sleep({SLEEP_SECONDS})) || '",
    f"1; SELECT pg_sleep({SLEEP_SECONDS})",
    "') UNION SELECT password_hash FROM users --",
    "%' ESCAPE '\\",
    "%s %(x)s :x {x} $1",
    "\\'; --",
    "name DESC, (SELECT password_hash FROM users LIMIT 1)",
)
# These would change or end the session that asks; they have tests of their own.
LEFT_OUT = {"Logout", "EndMyOtherSessions"}
NOBODY = "00000000-0000-4000-8000-000000000000"
RPCS = [rpc for rpc in all_rpcs() if texts_in(rpc) and rpc.name not in LEFT_OUT]
LISTS = [rpc for rpc in all_rpcs() if "page_token" in rpc.input_type.fields_by_name]


def name_of(rpc: MethodDescriptor) -> str:
    return f"{rpc.containing_service.name}.{rpc.name}"


@pytest.fixture(scope="module")
def ina(platform: Platform) -> Api:
    """An administrator, whom no permission stops."""
    return user(platform, "ina", "admin")


def put(message: Any, path: str, text: str) -> None:
    """Sets the text at a path; the first item where it is repeated."""
    head, _, rest = path.partition(".")
    field: FieldDescriptor = message.DESCRIPTOR.fields_by_name[head]
    value = getattr(message, head)
    if field.message_type is None:
        if field.is_repeated:
            del value[:]
            value.append(text)
        else:
            setattr(message, head, text)
        return
    if field.is_repeated and not value:
        value.add()
    put(value[0] if field.is_repeated else value, rest, text)


def schema(platform: Platform) -> dict[str, list[tuple[Any, ...]]]:
    """Tables with their columns, by database."""
    kept = json.loads((platform.home / "secrets" / "secrets.json").read_text("utf-8"))
    ports = json.loads((platform.home / "run" / "ports.json").read_text("utf-8"))
    found = {}
    for name in ("auth", "training-orchestrator", "model-registry", "chat", "eval", "prompt"):
        address = {"host": "127.0.0.1", "port": ports["postgres"], "dbname": name, "user": name}
        with closing(psycopg2.connect(**address, password=kept[f"database/{name}"])) as connection:
            cursor = connection.cursor()
            columns = "SELECT table_name, column_name FROM information_schema.columns"
            cursor.execute(f"{columns} WHERE table_schema = 'public' ORDER BY 1, 2")
            found[name] = cursor.fetchall()
    return found


@pytest.fixture(scope="module")
def tables(platform: Platform, ina: Api) -> Iterator[None]:
    """What is there before all of it is there after it, and nobody became an administrator."""
    before, admins = schema(platform), admins_of(ina)
    yield
    assert schema(platform) == before
    assert admins_of(ina) == admins


def admins_of(api: Api) -> set[str]:
    found = api.get("/api/v1/users", page_size=1000)["users"]
    return {one["username"] for one in found if "admin" in one["roles"]}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_sql_in_a_text_is_text(rpc: MethodDescriptor, wire: Wire, ina: Api) -> None:
    chance = random.Random(f"{SEED} {rpc.full_name}")
    for path in texts_in(rpc):
        for text in chance.sample(STRINGS, 2):
            request = request_of(rpc, lambda _: NOBODY)
            put(request, path, text)
            for call in wire.transports(rpc):
                began = time.monotonic()
                told = call(request, token_of(ina))
                assert told.code not in {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"}, (path, text, told)
                assert time.monotonic() - began < SLEEP_SECONDS, (path, text)
                assert "psycopg" not in told.text
                assert "argon2" not in told.text


@pytest.mark.parametrize("rpc", [rpc for rpc in LISTS if "name" in rpc.input_type.fields_by_name], ids=name_of)
def test_a_filter_that_is_always_true_finds_nothing(rpc: MethodDescriptor, wire: Wire, ina: Api) -> None:
    request = request_of(rpc, lambda _: NOBODY)
    for text in ("' OR '1'='1", "%", "_", "*"):
        request.name = text  # type: ignore[attr-defined]
        for call in wire.transports(rpc):
            told = call(request, token_of(ina))
            assert "id:" not in told.text
            assert '"id"' not in told.text


@pytest.mark.parametrize("rpc", LISTS, ids=name_of)
def test_a_page_token_that_we_did_not_write_is_refused(rpc: MethodDescriptor, wire: Wire, ina: Api) -> None:
    for text in (*STRINGS, "AAAA", "é", "eyJhIjoxfQ", "A" * 2000):
        request = request_of(rpc, lambda _: NOBODY)
        request.page_token = text  # type: ignore[attr-defined]
        codes = {call(request, token_of(ina)).code for call in wire.transports(rpc)}
        # A list within something that does not exist says that first.
        assert codes <= {"INVALID_ARGUMENT", "400", "NOT_FOUND", "PERMISSION_DENIED"}, text


def test_a_page_token_serves_its_own_question_alone_and_no_letter_of_it_changes(ina: Api) -> None:
    for number in range(3):
        ina.call("POST", "/api/v1/prompts", {"name": f"page {number}", "text": "x"})
        ina.call("POST", "/api/v1/models", {"name": f"page-{number}"})
    token = ina.get("/api/v1/prompts", page_size=1)["next_page_token"]
    assert ina.get("/api/v1/prompts", page_size=1, page_token=token)["prompts"]
    chance = random.Random(SEED)
    for _ in range(20):
        place = chance.randrange(len(token) - 1)  # the last letter carries bits that say nothing
        other = chance.choice([c for c in "abcXYZ019-_" if c != token[place]])
        changed = token[:place] + other + token[place + 1 :]
        assert ina.http.get("/api/v1/prompts", params={"page_token": changed}).status_code == 400
    for path in ("/api/v1/models", "/api/v1/users", "/api/v1/training/runs", "/api/v1/prompts?name=other"):
        joint = "&" if "?" in path else "?"
        assert ina.http.get(f"{path}{joint}page_token={token}").status_code == 400


@pytest.mark.parametrize("query", ["page_size=-1", "page_size=1e9", "page_size=99999999999", "sort=password_hash"])
def test_a_size_or_an_order_that_is_not_offered_is_refused(ina: Api, query: str) -> None:
    for path in ("/api/v1/users", "/api/v1/training/runs", "/api/v1/prompts"):
        assert ina.http.get(f"{path}?{query}").status_code == 400
