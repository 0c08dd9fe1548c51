"""OpenAPI paths of the upload routes, which no RPC describes."""

from collections.abc import Mapping, Sequence
from typing import Any

from espalier_gateway.files.routes import FILES, OCTETS, PERMISSION
from espalier_gateway.files.tus import PATCH_MEDIA_TYPE, VERSION
from espalier_gateway.openapi.operations import SIGNED_IN
from espalier_gateway.openapi.problems import problem_responses

TAG = {"name": "Files", "description": "Uploads, in one request or resumable by the tus 1.0 protocol, and downloads."}
_ALWAYS = (401, 403, 500, 503)

UPLOAD: dict[str, Any] = {
    "type": "object",
    "description": "An uploaded file, or what has arrived of it.",
    "required": ["upload_id", "filename", "offset", "length", "sha256", "complete"],
    "properties": {
        "upload_id": {"type": "string", "format": "uuid", "description": "Id by which RPCs refer to the file."},
        "filename": {"type": "string", "description": "Name given by the sender."},
        "offset": {"type": "integer", "description": "Bytes that are safely stored."},
        "length": {"type": "integer", "description": "Bytes of the whole file."},
        "sha256": {"type": "string", "description": "SHA-256, hexadecimal; before the end the announced one or empty."},
        "complete": {"type": "boolean", "description": "All bytes are there and the hash is right."},
    },
}
_ID = {"name": "upload_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_UPLOAD_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/Upload"}}}
_OFFSET_HEADER = {"Upload-Offset": {"schema": {"type": "integer"}, "description": "Bytes that are safely stored."}}


def file_paths() -> dict[str, Any]:
    """The paths below /api/v1/files."""
    return {
        FILES: {"post": _create()},
        f"{FILES}/{{upload_id}}": {
            "parameters": [_ID],
            "get": _operation("Files_GetUpload", "The upload as it stands", {"200": _ok("The upload.")}, (404,)),
            "head": _operation(
                "Files_GetOffset",
                "How many bytes are safely stored (tus)",
                {"200": {"description": "See the header Upload-Offset.", "headers": _OFFSET_HEADER}},
                (404,),
            ),
            "patch": _append(),
            "delete": _operation(
                "Files_DeleteUpload", "Removes the upload and its bytes", {"204": {"description": "Removed."}}, (404,)
            ),
        },
        f"{FILES}/{{upload_id}}/content": {"parameters": [_ID], "get": _content()},
    }


def _create() -> dict[str, Any]:
    operation = _operation(
        "Files_CreateUpload",
        "Sends a file in one request, or begins a resumable upload when Upload-Length is given (tus)",
        {"201": _ok("The upload; its address is in the header Location.")},
        (400, 411, 412, 413, 415, 507),
    )
    operation["parameters"] = [
        _parameter("filename", "query", "Name of the file."),
        _parameter("sha256", "query", "SHA-256 of the file, checked at the end; may be left out."),
        _parameter("Tus-Resumable", "header", f"{VERSION}, for a resumable upload."),
        _parameter("Upload-Length", "header", "Bytes of the whole file, for a resumable upload."),
        _parameter(
            "Upload-Metadata",
            "header",
            "`filename <base64>` and, if wanted, `,sha256 <base64>`, for a resumable upload.",
        ),
    ]
    operation["requestBody"] = {"content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
    return operation


def _append() -> dict[str, Any]:
    operation = _operation(
        "Files_AppendUpload",
        "Sends the next bytes of a resumable upload (tus)",
        {"204": {"description": "Stored.", "headers": _OFFSET_HEADER}},
        (400, 404, 408, 409, 412, 413, 415, 507),
    )
    operation["parameters"] = [
        _parameter("Tus-Resumable", "header", f"{VERSION}.", required=True),
        _parameter("Upload-Offset", "header", "Byte from which on this request goes on.", required=True),
    ]
    operation["requestBody"] = {
        "required": True,
        "content": {PATCH_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
    return operation


def _content() -> dict[str, Any]:
    binary = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}
    operation = _operation(
        "Files_Download",
        "The bytes of a complete upload",
        {
            "200": {"description": "The whole file.", "content": binary},
            "206": {"description": "The range asked for.", "content": binary},
            "304": {"description": "The file has the hash in If-None-Match."},
        },
        (404, 409, 416),
    )
    operation["parameters"] = [_parameter("Range", "header", "One range of bytes, such as bytes=0-1023.")]
    return operation


def _operation(
    operation_id: str, summary: str, responses: Mapping[str, Any], problems: Sequence[int]
) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "tags": [TAG["name"]],
        "summary": summary,
        "x-permission": PERMISSION,
        "security": SIGNED_IN,
        "responses": {**responses, **problem_responses([*_ALWAYS, *problems])},
    }


def _ok(description: str) -> dict[str, Any]:
    return {"description": description, "content": _UPLOAD_BODY}


def _parameter(name: str, place: str, description: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}
