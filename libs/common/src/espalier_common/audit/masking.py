"""What of a request, an answer or an entity may stand in the audit log: everything but secrets and private words.

The one list of names. A secret gives access; private words are what people say to a model, and their owner's alone.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import orjson
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import Message

from espalier_common.storable import storable
from espalier_common.telemetry import names_secret

MASK = "[masked]"
MAX_TEXT = 1000  # characters of one value
MAX_ITEMS = 50  # of one list or mapping
MAX_DEPTH = 12
MAX_BYTES = 16_384  # of one state as JSON
MAX_MESSAGE_BYTES = 65_536  # a larger request is told by its size alone

# Beyond what `telemetry.names_secret` knows: keys, hashes of secrets, one-time codes, and links that carry one.
_SECRET = re.compile(
    r"(^|_)(key|verifier|nonce|otp|link|url|signature|binding)$|hash$|^sealed_|^(recovery_)?codes?$|^otpauth_"
)
_PRIVATE = frozenset({"text", "content", "system_prompt", "messages", "prompt", "reference", "answer", "completion"})
# An address without what could be a secret in it.
_ADDRESSES = frozenset({"base_url"})
_NAMING = ("name", "key")


def is_masked(name: str) -> bool:
    """Whether values under this name give access, and stay out of the audit log."""
    lowered = name.lower()
    return names_secret(lowered) or bool(_SECRET.search(lowered))


def to_json(value: Any) -> str:
    """A masked state as JSON, sorted by name, at most 16 KiB; empty for nothing."""
    if not value:
        return ""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    if len(text) > MAX_BYTES:
        text = orjson.dumps({"omitted_bytes": len(text)})
    return text.decode()


def masked_message(message: Message | None) -> Any:
    """A message as masked JSON values, in proto names; None for none or an empty one."""
    if message is None:
        return None
    size = message.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        return {"omitted_bytes": size}
    try:
        return masked(MessageToDict(message, preserving_proto_field_name=True)) or None
    except (Error, ValueError, TypeError, OverflowError):
        # A moment beyond the calendar, a field mask of odd letters: JSON cannot say it, and nobody has checked it yet.
        return {"omitted_bytes": size}


def masked(value: Any, *, name: str = "", depth: int = 0) -> Any:
    """The value as JSON can hold it, with masks in place of secrets, cut where it is long."""
    if name in _ADDRESSES and isinstance(value, str):
        return _without_query(value)
    if name and (is_masked(name) or (name in _PRIVATE and isinstance(value, str))):
        return value if value in (None, "", [], {}) or isinstance(value, bool) else MASK
    if depth > MAX_DEPTH:
        return "[nested too deep]"
    if isinstance(value, Mapping):
        return _masked_mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        items = [masked(item, name=name, depth=depth + 1) for item in list(value)[:MAX_ITEMS]]
        return [*items, f"[{len(value) - MAX_ITEMS} more]"] if len(value) > MAX_ITEMS else items
    return _plain(value)


def _masked_mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    found = {
        storable(str(key))[:200]: masked(item, name=str(key), depth=depth + 1)
        for key, item in list(value.items())[:MAX_ITEMS]
    }
    # {"name": "smtp_password", "value": "…"}: the name stands beside the value.
    if "value" in found and any(is_masked(str(value.get(naming) or "")) for naming in _NAMING):
        found["value"] = MASK
    if len(value) > MAX_ITEMS:
        found["[more]"] = len(value) - MAX_ITEMS
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Enum):
        text = storable(value)
        return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… [{len(text)} characters]"
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and not isinstance(value, Enum):
        return value if abs(value) < 1 << 53 else str(value)
    return _told(value)


def _told(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else storable(str(value))[:MAX_TEXT]


def _without_query(address: str) -> str:
    try:
        parts = urlsplit(address)
        host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return MASK
    return storable(f"{parts.scheme}://{host}{parts.path}")[:MAX_TEXT]
