"""The row formats, how each becomes the canonical example, and how a file's format is recognised.

alpaca     {"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], …]}
sharegpt   {"conversations": [{"from": "human"|"gpt"|"system", "value"}, …], "system"?}
openai     {"messages": [{"role": "system"|"user"|"assistant", "content"}, …]}
text       {"text"}, one object a line; or a plain text file, whose rows are its paragraphs (blocks between blank lines)

A conversion raises Flaw for a row that cannot be used, and yields warnings beside one that can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

from espalier_data.examples import Conversation, Example, Message, Role, Text
from espalier_data.findings import Flaw, Reason, Severity, describe, pointer


class Format(StrEnum):
    """The row formats by name."""

    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    OPENAI = "openai"
    TEXT = "text"

    @property
    def has_answers(self) -> bool:
        """Rows are conversations, so that `sft` can train on their assistant turns."""
        return self is not Format.TEXT


_SHAREGPT_ROLES = {
    "system": Role.SYSTEM,
    "human": Role.USER,
    "user": Role.USER,
    "gpt": Role.ASSISTANT,
    "assistant": Role.ASSISTANT,
}
_OPENAI_ROLES = {role.value: role for role in Role} | {"developer": Role.SYSTEM}


def convert(row: Any, row_format: Format) -> Example:
    """The canonical example of a parsed row. Raises Flaw when the row does not fit the format."""
    if not isinstance(row, dict):
        raise Flaw("", Reason.NOT_AN_OBJECT, "a JSON object", describe(row))
    return _CONVERSIONS[row_format](row)


def warnings(example: Example) -> Iterator[Flaw]:
    """What is odd about a usable example: empty contents, a conversation that ends without an answer."""
    if isinstance(example, Text):
        if not example.text.strip():
            yield _warning("", Reason.EMPTY, "text", "nothing but white space")
        return
    for index, message in enumerate(example.messages):
        if not message.content.strip():
            yield _warning(pointer(index), Reason.EMPTY, f"a {message.role} message with content", "an empty one")
    if example.messages[-1].role is not Role.ASSISTANT:
        yield _warning("", Reason.TRAILING_PROMPT, "an answer at the end", "a prompt, which is not trained on")


def recognise(row: Any) -> Format | None:
    """The format whose keys the row has; None when none fits."""
    if not isinstance(row, dict):
        return None
    for key, row_format in _KEYS.items():
        if key in row:
            return row_format
    return None


def _from_alpaca(row: dict[str, Any]) -> Conversation:
    messages: list[Message] = []
    if system := _optional_text(row, "system"):
        messages.append(Message(Role.SYSTEM, system))
    for index, pair in enumerate(_optional_list(row, "history")):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            expected = "a pair [question, answer] of strings"
            raise Flaw(pointer("history", index), Reason.WRONG_TYPE, expected, describe(pair))
        messages += [Message(Role.USER, pair[0]), Message(Role.ASSISTANT, pair[1])]
    question = "\n".join(part for part in (_text(row, "instruction"), _optional_text(row, "input")) if part)
    messages += [Message(Role.USER, question), Message(Role.ASSISTANT, _text(row, "output"))]
    return Conversation(tuple(messages))


def _from_sharegpt(row: dict[str, Any]) -> Conversation:
    messages: list[Message] = []
    if system := _optional_text(row, "system"):
        messages.append(Message(Role.SYSTEM, system))
    for index, turn in enumerate(_turns(row, "conversations")):
        role = _role(turn, key="from", roles=_SHAREGPT_ROLES, place=("conversations", index))
        messages.append(Message(role, _text(turn, "value", "conversations", index)))
    return _ordered(messages, "conversations")


def _from_openai(row: dict[str, Any]) -> Conversation:
    messages: list[Message] = []
    for index, turn in enumerate(_turns(row, "messages")):
        role = _role(turn, key="role", roles=_OPENAI_ROLES, place=("messages", index))
        messages.append(Message(role, _content(turn, index)))
    return _ordered(messages, "messages")


def _from_text(row: dict[str, Any]) -> Text:
    return Text(_text(row, "text"))


def _content(turn: dict[str, Any], index: int) -> str:
    """The content of an OpenAI message: a string, or parts that are all text."""
    content = turn.get("content")
    if content is None and turn.get("tool_calls"):
        place = pointer("messages", index, "tool_calls")
        raise Flaw(place, Reason.UNSUPPORTED_CONTENT, "text content", "tool calls, which are not trained on")
    if not isinstance(content, list):
        return _text(turn, "content", "messages", index)
    texts: list[str] = []
    for number, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = describe(part.get("type")) if isinstance(part, dict) else describe(part)
            place = pointer("messages", index, "content", number)
            raise Flaw(place, Reason.UNSUPPORTED_CONTENT, 'a part of type "text"', kind)
        texts.append(_text(part, "text", "messages", index, "content", number))
    return "".join(texts)


def _turns(row: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    if key not in row:
        raise _missing(row, key)
    turns = row[key]
    if not isinstance(turns, list):
        raise Flaw(pointer(key), Reason.WRONG_TYPE, "an array of messages", describe(turns))
    if not turns:
        raise Flaw(pointer(key), Reason.NO_MESSAGES, "at least one message", "an empty array")
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise Flaw(pointer(key, index), Reason.WRONG_TYPE, "a message object", describe(turn))
        yield turn


def _role(turn: dict[str, Any], *, key: str, roles: dict[str, Role], place: tuple[str | int, ...]) -> Role:
    name = _text(turn, key, *place)
    if name not in roles:
        raise Flaw(pointer(*place, key), Reason.UNKNOWN_ROLE, "one of " + ", ".join(roles), describe(name))
    return roles[name]


def _ordered(messages: list[Message], key: str) -> Conversation:
    """The conversation, once its turns stand in an order that a chat template can render and a model can learn."""
    for index, message in enumerate(messages):
        if message.role is Role.SYSTEM and index > 0:
            raise Flaw(pointer(key), Reason.ROLE_ORDER, "the system message first and once", f"one at place {index}")
    turns = [message.role for message in messages if message.role is not Role.SYSTEM]
    if turns and turns[0] is not Role.USER:
        raise Flaw(pointer(key), Reason.ROLE_ORDER, "a user turn before the first answer", "an assistant turn")
    if Role.ASSISTANT not in turns:
        raise Flaw(pointer(key), Reason.NO_ASSISTANT_TURN, "at least one assistant turn to learn from", "none")
    return Conversation(tuple(messages))


def _text(row: dict[str, Any], key: str, *place: str | int) -> str:
    if key not in row:
        raise _missing(row, key, *place)
    value = row[key]
    if not isinstance(value, str):
        raise Flaw(pointer(*place, key), Reason.WRONG_TYPE, "a string", describe(value))
    return value


def _optional_text(row: dict[str, Any], key: str) -> str:
    return "" if row.get(key) is None else _text(row, key)


def _optional_list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Flaw(pointer(key), Reason.WRONG_TYPE, "an array", describe(value))
    return value


def _missing(row: dict[str, Any], key: str, *place: str | int) -> Flaw:
    return Flaw(pointer(*place, key), Reason.MISSING_FIELD, f"the field `{key}`", describe(row))


def _warning(place: str, reason: Reason, expected: str, found: str) -> Flaw:
    return Flaw(place, reason, expected, found, Severity.WARNING)


_CONVERSIONS: dict[Format, Callable[[dict[str, Any]], Example]] = {
    Format.ALPACA: _from_alpaca,
    Format.SHAREGPT: _from_sharegpt,
    Format.OPENAI: _from_openai,
    Format.TEXT: _from_text,
}
_KEYS = {
    "messages": Format.OPENAI,
    "conversations": Format.SHAREGPT,
    "instruction": Format.ALPACA,
    "text": Format.TEXT,
}
