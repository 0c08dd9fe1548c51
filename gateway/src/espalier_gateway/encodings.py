"""Which compressed form of a file a client takes, as it says in Accept-Encoding (RFC 9110, 12.5.3)."""

from pathlib import Path
from typing import Final

# Coding and the ending that the build gives its file; of those that a client likes equally, the first.
CODINGS: Final = {"br": ".br", "gzip": ".gz"}


def accepted(header: str) -> list[str]:
    """The codings of ours that a client takes, the one that it likes best first."""
    weights = dict(_weight(part) for part in header.lower().split(",") if part.strip())
    liked = {coding: weights.get(coding, weights.get("*", 0.0)) for coding in CODINGS}
    return sorted((coding for coding in CODINGS if liked[coding] > 0), key=lambda coding: -liked[coding])


def _weight(part: str) -> tuple[str, float]:
    """ "br;q=0.5" → ("br", 0.5); 1 when nothing is said, and 0, which is never, when what is said is no number."""
    coding, _, parameter = part.partition(";")
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return coding.strip(), 1.0
    try:
        return coding.strip(), float(value)
    except ValueError:
        return coding.strip(), 0.0


def choose(path: Path, header: str) -> tuple[Path, str]:
    """The file to send for this one, and its coding: empty when it goes as it is."""
    for coding in accepted(header):
        compressed = path.with_name(path.name + CODINGS[coding])
        if compressed.is_file():
            return compressed, coding
    return path, ""
