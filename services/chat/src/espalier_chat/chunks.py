"""What a model server says, read: chunks of a chat completion as OpenAI has them. Nothing of it is trusted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from espalier_chat.errors import UpstreamError

MAX_LINE_BYTES = 1 << 20
DONE = b"[DONE]"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one event of a stream adds; counts are None where it tells none."""

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def parse_piece(data: bytes) -> Piece:
    """One `data:` of the stream. Raises UpstreamError when it is no chunk of a chat completion, or tells an error."""
    chunk = load_chunk(data)
    choice = (chunk.get("choices") or [{}])[0]
    prompt_tokens, completion_tokens = tokens_of(chunk)
    try:
        return Piece(
            # PostgreSQL stores no NUL.
            text=((choice.get("delta") or {}).get("content") or "").replace("\x00", ""),
            finish_reason=str(choice.get("finish_reason") or "")[:64],
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )
    except AttributeError as error:
        raise nonsense() from error


def load_chunk(data: bytes) -> dict[str, Any]:
    """A chunk, or a whole answer, as a mapping. Raises UpstreamError as `parse_piece`."""
    chunk = _load(data)
    if not isinstance(chunk, dict):
        raise nonsense()
    # `{"object": "error"}` is how older servers begin one.
    if chunk.get("error") or chunk.get("object") == "error":
        raise UpstreamError("The model server failed while it was answering.")
    return chunk


def tokens_of(chunk: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of prompt and answer that the chunk tells; None where it tells none. Raises UpstreamError."""
    usage = chunk.get("usage") or {}
    try:
        return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    except AttributeError as error:
        raise nonsense() from error


def data_of(line: bytes) -> bytes | None:
    """The payload of an SSE data line; None for any other line. Raises UpstreamError for one without end."""
    if len(line) > MAX_LINE_BYTES:
        raise nonsense()
    return line[5:].strip() or None if line.startswith(b"data:") else None


def nonsense() -> UpstreamError:
    """What came is nothing that this service understands."""
    return UpstreamError("The model server sent something that is no chat completion.")


def _load(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Half a surrogate pair, which some servers send when a token ends within an emoji, is no reason to fail.
        try:
            text = json.loads(data)
        except ValueError as error:
            raise nonsense() from error
        return orjson.loads(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))


def _count(value: object) -> int | None:
    return min(value, 2**31 - 1) if isinstance(value, int) and value >= 0 else None
