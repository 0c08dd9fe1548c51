"""Path templates of google.api.http, such as `/api/v1/users/{user.id}` and `/api/v1/training/runs/{run_id}:stop`.

Template = "/" Segment { "/" Segment } [ ":" verb ]
Segment  = "*" | "**" | literal | "{" field path [ "=" Segment { "/" Segment } ] "}"
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from espalier_gateway.errors import MalformedRequest

_TOKEN = re.compile(r"\{(?P<path>[a-z0-9_.]+)(?:=(?P<pattern>[^{}]+))?\}|(?P<wild>\*\*|\*)|(?P<text>[^{}*]+)")
# A colon in the last segment would be a custom verb; one that is meant as text arrives as %3A.
_ONE = r"[^/:]+"
_MANY = r"[^:]+"


@dataclass(frozen=True)
class PathTemplate:
    """A parsed template. `names` are the field paths it binds, in order."""

    text: str
    names: tuple[str, ...] = field(init=False)
    _regex: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names: list[str] = []
        parts: list[str] = []
        for token in _TOKEN.finditer(self.text):
            if token["path"]:
                names.append(token["path"])
                parts.append(f"({_segments(token['pattern'] or '*')})")
            else:
                parts.append(_segments(token["wild"]) if token["wild"] else re.escape(token["text"]))
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "_regex", re.compile("".join(parts)))

    @property
    def specificity(self) -> tuple[int, int]:
        """Sorts templates so that the one with more literal text is tried first."""
        literal = re.sub(r"\{[^}]*\}|\*", "", self.text)
        return (-len(literal), len(self.names))

    @property
    def openapi(self) -> str:
        """The template as OpenAPI writes it: `{user.id}` stays, patterns go."""
        return re.sub(r"\{([a-z0-9_.]+)=[^}]*\}", r"{\1}", self.text)

    def match(self, raw_path: str) -> dict[str, str] | None:
        """Values by field path, percent-decoded; None when the path, still encoded, is another's."""
        found = self._regex.fullmatch(raw_path)
        if found is None:
            return None
        return {name: decode_segment(value) for name, value in zip(self.names, found.groups(), strict=True)}


def decode_segment(value: str) -> str:
    """Percent-decoded text. Raises MalformedRequest when it is no UTF-8."""
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"The path part {value[:100]!r} is not percent-encoded UTF-8.") from error


def _segments(pattern: str) -> str:
    pieces = re.split(r"(\*\*|\*)", pattern)
    return "".join({"*": _ONE, "**": _MANY}.get(piece, re.escape(piece)) for piece in pieces)
