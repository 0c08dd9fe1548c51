"""The OpenAPI document: whole, valid, true to the contract, and served with a page that needs nobody else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from espalier_gateway.contract import read_contract
from espalier_gateway.credentials import CookieNames
from espalier_gateway.openapi.document import build_document

from .fakes import RUN_ID
from .running import RunningGateway, StartGateway


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(
        build_document(read_contract(), origin="http://127.0.0.1:8080", cookies=CookieNames.of(secure=False))
    )


def operations(document: dict[str, Any]) -> Any:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def walk(value: Any) -> Any:
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from walk(child)


def test_every_route_of_the_contract_is_described_with_its_permission(document: dict[str, Any]) -> None:
    for binding in read_contract():
        operation = document["paths"][binding.template.openapi][binding.method.lower()]
        assert operation["x-rpc"] == binding.rpc.full_name
        assert operation["x-permission"] == binding.requires
        assert operation["operationId"] == f"{binding.rpc.containing_service.name}_{binding.rpc.name}"
        assert operation["summary"]
        assert (operation["security"] == []) is (binding.requires == "PUBLIC")
        kinds = operation["responses"]["200"]["content"]
        files = ["text/csv", "application/jsonl"] if binding.exports else []
        assert list(kinds) == (["text/event-stream", *files] if binding.streams else ["application/json"])
        assert operation["responses"]["400"] == {"$ref": "#/components/responses/Problem400"}


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_path_parameters_are_all_described(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        shared = document["paths"][path].get("parameters", [])
        described = {each["name"] for each in [*shared, *operation.get("parameters", [])] if each["in"] == "path"}
        assert described == set(re.findall(r"\{([^}]+)\}", path))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for value in walk(document):
        if isinstance(value, dict) and "$ref" in value:
            target = document
            for part in value["$ref"].removeprefix("#/").split("/"):
                assert part in target, value["$ref"]
                target = target[part]


def test_every_schema_is_a_valid_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_comments_and_bounds_of_the_protos_are_in_it(document: dict[str, Any]) -> None:
    login = document["components"]["schemas"]["auth.v1.LoginRequest"]
    assert login["required"] == ["username", "password"]
    assert login["properties"]["username"]["maxLength"] == 64
    assert login["properties"]["username"]["description"] == "Name of the user."
    size = next(
        each for each in document["paths"]["/api/v1/training/runs"]["get"]["parameters"] if each["name"] == "page_size"
    )
    assert (size["schema"]["minimum"], size["schema"]["maximum"]) == (0, 1000)
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description") or name.endswith("Request"), name


def test_a_body_does_not_ask_for_what_the_path_says(document: dict[str, Any]) -> None:
    stop = document["components"]["schemas"]["training_orchestrator.v1.StopRunRequest"]
    assert list(stop["properties"]) == ["mode"]
    assert "required" not in stop


def test_a_browser_refreshes_without_a_body(document: dict[str, Any]) -> None:
    """Its token is in the cookie."""
    assert "required" not in document["components"]["schemas"]["auth.v1.RefreshRequest"]
    assert not document["paths"]["/api/v1/auth/refresh"]["post"]["requestBody"].get("required")


def test_streams_say_how_they_resume(document: dict[str, Any]) -> None:
    watch = document["paths"]["/api/v1/training/runs/{run_id}:watch"]["get"]
    assert "Last-Event-ID" in [each["name"] for each in watch["parameters"]]


def test_the_upload_routes_are_in_it(document: dict[str, Any]) -> None:
    assert set(document["paths"]["/api/v1/files"]) == {"post"}
    assert set(document["paths"]["/api/v1/files/{upload_id}"]) == {"parameters", "get", "head", "patch", "delete"}
    assert "get" in document["paths"]["/api/v1/files/{upload_id}/content"]


def test_the_same_contract_gives_the_same_bytes() -> None:
    contract, cookies = read_contract(), CookieNames.of(secure=True)
    first, second = (build_document(contract, origin="x", cookies=cookies) for _ in range(2))
    assert first == second


async def test_answers_are_what_the_document_says(gateway: RunningGateway, document: dict[str, Any]) -> None:
    client = gateway.client_for()
    for path, schema in (
        (f"/api/v1/training/runs/{RUN_ID}", "training_orchestrator.v1.Run"),
        ("/api/v1/training/runs", "training_orchestrator.v1.ListRunsResponse"),
        ("/api/v1/me", "auth.v1.Me"),
        ("/api/v1/training/runs/wrong", "Problem"),
        ("/api/v1/nothing", "Problem"),
    ):
        answer = await client.get(path)
        validator = Draft202012Validator(
            {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        )
        assert not list(validator.iter_errors(answer.json()))


async def test_the_document_and_the_page_are_public_on_loopback(gateway: RunningGateway) -> None:
    answer = await gateway.client.get("/openapi.json")
    assert answer.json()["openapi"] == "3.1.0"
    page = await gateway.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.text):
        part = await gateway.client.get(name)
        assert part.status_code == 200
        assert part.headers["x-content-type-options"] == "nosniff"


async def test_elsewhere_they_ask_for_a_sign_in_and_can_be_switched_off(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(public_url="https://espalier.example.org")
    for path in ("/openapi.json", "/docs"):
        assert (await gateway.client.get(path)).status_code == 401
        assert (await gateway.client_for(permissions=()).get(path)).status_code == 200
    off = await start_gateway(docs="off")
    assert (await off.client_for().get("/openapi.json")).status_code == 404


def test_the_page_needs_no_outside_network_and_no_inline_script() -> None:
    import espalier_gateway.docs.pages as pages

    folder = Path(pages.__file__).parent
    for name in ("docs.html", "docs.js", "docs.css"):
        text = (folder / name).read_text("utf-8")
        assert not re.search(r"https?://|//cdn|@import", text)
        assert "innerHTML" not in text
    html = (folder / "docs.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|style=", html)
