"""A few hundred requests made up from /openapi.json, the same each time: none of them makes the platform stumble."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from people import user
from platform_process import Api, Platform

EXAMPLES = 8  # of each operation
# Ends the session that asks.
LEFT_OUT = {"/api/v1/auth/logout", "/api/v1/me/sessions:endOthers"}

ODD = ["", " ", "\u0000", "\u202e", "a" * 5000, "é" * 100, "../../etc/passwd", "{{7*7}}", "%00", "null", "-1", "1e999"]
texts = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), texts
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def gene(platform: Platform) -> Api:
    return user(platform, "gene", "admin")


@pytest.fixture(scope="module")
def document(gene: Api) -> dict[str, Any]:
    return dict(gene.get("/openapi.json"))


def fitting(schema: dict[str, Any], document: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a schema, and now and then one that does not."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    if depth > 4:
        return anything
    fits = _fitting(schema, document, depth)
    return st.one_of(fits, fits, fits, anything)


def _fitting(schema: dict[str, Any], document: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if choices := schema.get("enum"):
        return st.sampled_from(choices)
    if variants := schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf"):
        return st.one_of([fitting(variant, document, depth + 1) for variant in variants])
    kind = schema.get("type")
    if kind == "object":
        fields = {name: fitting(each, document, depth + 1) for name, each in schema.get("properties", {}).items()}
        return st.fixed_dictionaries({}, optional=fields)
    if kind == "array":
        return st.lists(fitting(schema.get("items", {}), document, depth + 1), max_size=3)
    if kind == "integer":
        return st.integers(-5, 5000)
    if kind == "number":
        return st.floats(-10, 10)
    if kind == "boolean":
        return st.booleans()
    return st.one_of(texts, st.just(NOBODY)) if kind == "string" else anything


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    verbs = {"get", "post", "patch", "put", "delete", "head"}
    return [
        (verb.upper(), path, {**operation, "shared": item.get("parameters", [])})
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if verb in verbs and path not in LEFT_OUT
    ]


def test_no_generated_request_makes_the_platform_stumble(gene: Api, document: dict[str, Any]) -> None:
    faults: list[str] = []
    unasked: list[str] = []
    for method, path, operation in operations(document):
        answers = walk(gene.http, document, method=method, path=path, operation=operation)
        faults += filter(None, answers)
        unasked += [] if answers else [f"{method} {path}"]

    assert not faults, "\n".join(faults[:10])
    assert not unasked


def walk(
    http: httpx.Client, document: dict[str, Any], *, method: str, path: str, operation: dict[str, Any]
) -> list[str]:
    """Asks an operation in some ways; for each answer what is wrong with it, empty when nothing is."""
    faults: list[str] = []
    parameters = [*operation["shared"], *operation.get("parameters", [])]
    content = operation.get("requestBody", {}).get("content", {})
    body = fitting(content["application/json"]["schema"], document) if "application/json" in content else st.none()
    values = st.fixed_dictionaries(
        {each["name"]: fitting(each["schema"], document) for each in parameters if each["in"] == "path"},
        optional={each["name"]: fitting(each["schema"], document) for each in parameters if each["in"] == "query"},
    )
    places = {each["name"]: each["in"] for each in parameters}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values=values, body=body)
    def ask(values: dict[str, Any], body: Any) -> None:
        asked = path
        for name, place in places.items():
            if place == "path":
                asked = asked.replace(f"{{{name}}}", quoted(values[name]))
        query = {name: str(value) for name, value in values.items() if places[name] == "query"}
        request = http.build_request(method, asked, params=query, json=body)
        answer = http.send(request, stream=True)
        try:
            fault = fault_of(answer)
            faults.append(fault and f"{method} {asked} {query} {body!r}"[:1000] + f": {fault}")
        finally:
            answer.close()

    ask()
    return faults


def quoted(value: Any) -> str:
    return "".join(f"%{byte:02X}" for byte in str(value).encode()) or "%20"


def fault_of(answer: httpx.Response) -> str:
    """What no answer may be: the platform's own failure, or a refusal that does not say why."""
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.read().decode()}"
    if answer.status_code < 400 or answer.request.method == "HEAD":
        return ""
    text = answer.read().decode()
    if answer.headers["content-type"] != "application/problem+json":
        return f"{answer.status_code} {answer.headers['content-type']}: {text}"
    missing = {"detail", "reason", "request_id"} - answer.json().keys()
    return f"{answer.status_code} without {', '.join(sorted(missing))}: {text}" if missing else ""
