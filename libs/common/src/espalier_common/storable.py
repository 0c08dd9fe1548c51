"""Text from outside as PostgreSQL can hold it: it refuses NUL in text and JSON, and halves of surrogate pairs."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """The text with what cannot be stored replaced, visibly."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", _REPLACEMENT)
