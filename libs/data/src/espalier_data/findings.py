"""What a row check says about a row: machine reason, place, what was expected and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error rejects the row; a warning lets it pass."""

    ERROR = "error"
    WARNING = "warning"


class Reason(StrEnum):
    """Stable reason codes of findings."""

    # The line
    LINE_TOO_LONG = "LINE_TOO_LONG"
    NOT_UTF8 = "NOT_UTF8"
    NOT_TEXT = "NOT_TEXT"
    # The JSON
    NOT_JSON = "NOT_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    JSON_ARRAY = "JSON_ARRAY"
    NOT_FINITE = "NOT_FINITE"
    NUMBER_TOO_LONG = "NUMBER_TOO_LONG"
    TOO_DEEP = "TOO_DEEP"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    LONE_SURROGATE = "LONE_SURROGATE"
    NUL_CHARACTER = "NUL_CHARACTER"
    # The row
    MISSING_FIELD = "MISSING_FIELD"
    WRONG_TYPE = "WRONG_TYPE"
    UNKNOWN_ROLE = "UNKNOWN_ROLE"
    ROLE_ORDER = "ROLE_ORDER"
    NO_MESSAGES = "NO_MESSAGES"
    NO_ASSISTANT_TURN = "NO_ASSISTANT_TURN"
    UNSUPPORTED_CONTENT = "UNSUPPORTED_CONTENT"
    # Warnings
    EMPTY = "EMPTY"
    DUPLICATE = "DUPLICATE"
    TOO_LONG = "TOO_LONG"
    TRAILING_PROMPT = "TRAILING_PROMPT"
    CONTROL_TOKEN = "CONTROL_TOKEN"  # noqa: S105 - a token of text, no secret


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark about one row."""

    line: int
    """Line number in the file, from 1."""
    pointer: str
    """RFC 6901 pointer into the row; empty = the row itself."""
    reason: Reason
    expected: str
    found: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"line {self.line}" + (f", {self.pointer}" if self.pointer else "")
        return f"{place}: expected {self.expected}, found {self.found} ({self.reason})"


@dataclass(eq=False)
class Flaw(Exception):
    """Raised inside a row check; carries all of a Finding but the line number."""

    pointer: str
    reason: Reason
    expected: str
    found: str
    severity: Severity = Severity.ERROR

    def at(self, line: int) -> Finding:
        """This flaw as a finding about that line."""
        return Finding(
            line=line,
            pointer=self.pointer,
            reason=self.reason,
            expected=self.expected,
            found=self.found,
            severity=self.severity,
        )


def pointer(*parts: str | int) -> str:
    """An RFC 6901 JSON pointer from its parts."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def describe(value: object) -> str:  # noqa: PLR0911 - one line per JSON type
    """A value as people name it, short and safe to print."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            shown = value if len(value) <= 40 else value[:37] + "..."
            return "the string " + ascii(shown) if value else "an empty string"
        case int() | float():
            return f"the number {value}"
        case list():
            return f"an array of {len(value)}"
        case dict():
            keys = ", ".join(ascii(str(key)[:30]) for key in list(value)[:6])
            return f"an object with {keys}" if keys else "an empty object"
    return type(value).__name__
