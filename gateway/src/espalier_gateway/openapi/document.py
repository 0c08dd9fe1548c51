"""The whole document."""

from collections.abc import Iterable
from typing import Any

import orjson

from espalier_gateway.contract import Binding
from espalier_gateway.credentials import CookieNames
from espalier_gateway.openapi.comments import read_comments
from espalier_gateway.openapi.file_paths import TAG, UPLOAD, file_paths
from espalier_gateway.openapi.operations import Operations, tag_of
from espalier_gateway.openapi.problems import PROBLEM, problem_components
from espalier_gateway.openapi.schemas import Schemas

API_VERSION = "1.0.0"
_DESCRIPTION = (
    "The API of Espalier, derived from its gRPC contract. JSON names are those of the protos; answers "
    "write defaults out. Errors are problem JSON (RFC 9457) with a stable `reason`. Beside it /v1 speaks OpenAI's API, "
    "which is described there: models and chat completions, with an API key as the bearer token."
)


def build_document(bindings: Iterable[Binding], *, origin: str, cookies: CookieNames) -> bytes:
    """OpenAPI 3.1 as JSON. The same contract gives the same bytes."""
    return orjson.dumps(document(bindings, origin=origin, cookies=cookies))


def document(bindings: Iterable[Binding], *, origin: str, cookies: CookieNames) -> dict[str, Any]:
    """The document as a mapping."""
    comments = read_comments()
    schemas = Schemas(comments)
    operations = Operations(schemas, comments)
    paths: dict[str, Any] = {}
    tags: dict[str, Any] = {}
    for binding in bindings:
        paths.setdefault(binding.template.openapi, {})[binding.method.lower()] = operations.operation(binding)
        tag = tag_of(binding, comments)
        tags[tag["name"]] = tag
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Espalier",
            "version": API_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": origin}],
        "tags": [*tags.values(), TAG],
        "paths": {**paths, **file_paths()},
        "components": {
            "schemas": {**schemas.components, "Problem": PROBLEM, "Upload": UPLOAD},
            "responses": problem_components(),
            "securitySchemes": _security_schemes(cookies),
        },
    }


def _security_schemes(cookies: CookieNames) -> dict[str, Any]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access_token of AuthService_Login.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookies.access,
            "description": 'Set by AuthService_Login with "cookie": true.',
        },
        "csrf": {
            "type": "apiKey",
            "in": "header",
            "name": "X-CSRF-Token",
            "description": f"Repeats the cookie {cookies.csrf} on every method but GET, HEAD and OPTIONS.",
        },
    }
