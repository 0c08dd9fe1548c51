"""The headers of tus 1.0 (tus.io/protocols/resumable-upload): core with the extensions creation and termination."""

import base64
import binascii
import re
from collections.abc import Mapping

from starlette.datastructures import Headers

from espalier_common.errors import FieldViolation, InvalidArgument
from espalier_gateway.errors import UnsupportedMedia, VersionMismatch

VERSION = "1.0.0"
EXTENSIONS = "creation,termination"
PATCH_MEDIA_TYPE = "application/offset+octet-stream"

_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


def announcement(max_bytes: int) -> Mapping[str, str]:
    """Headers of the answer to OPTIONS: what this server can do."""
    return {"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Max-Size": str(max_bytes), **version()}


def version() -> Mapping[str, str]:
    """Header of every answer of the protocol."""
    return {"Tus-Resumable": VERSION}


def check_version(headers: Headers) -> None:
    """Raises VersionMismatch when the client speaks another version, or does not say which."""
    if headers.get("tus-resumable") != VERSION:
        raise VersionMismatch(
            f"This server speaks tus {VERSION}; send Tus-Resumable: {VERSION}.", headers={"Tus-Version": VERSION}
        )


def check_patch_type(headers: Headers) -> None:
    """Raises UnsupportedMedia."""
    found = headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != PATCH_MEDIA_TYPE:
        raise UnsupportedMedia(
            f"A part of an upload must be {PATCH_MEDIA_TYPE}; it is {found[:100] or 'of no stated type'}."
        )


def read_number(headers: Headers, name: str) -> int:
    """The header as a whole number of bytes. Raises InvalidArgument."""
    text = headers.get(name, "")
    if not _WHOLE.fullmatch(text):
        raise invalid(name, f"must be a whole number of bytes; it is {text[:40]!r}" if text else "is required")
    return int(text)


def read_metadata(headers: Headers) -> dict[str, str]:
    """The pairs of Upload-Metadata: `key base64, key base64`. Raises InvalidArgument."""
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in headers.get("upload-metadata", "").split(","))):
        key, _, value = part.partition(" ")
        try:
            pairs[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError) as error:
            raise invalid("Upload-Metadata", f"has a value for {key[:40]!r} that is no base64 of UTF-8") from error
    return pairs


def invalid(name: str, description: str) -> InvalidArgument:
    """The error for one wrong header or parameter."""
    return InvalidArgument(
        f"The request is not valid: {name} {description}.", violations=[FieldViolation(name, description)]
    )
