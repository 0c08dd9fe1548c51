"""What a display name may be: one line that looks to everybody like what it is, in a table, a log and a terminal."""

import unicodedata

from espalier_common.errors import FieldViolation

# Controls (also those of terminals), formats (also those that turn the direction of writing), ends of lines.
_REFUSED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Two formats join and part letters, and emoji, in many languages.
_JOINERS = frozenset("\u200c\u200d")


def find_name_violations(text: str, *, field: str) -> list[FieldViolation]:
    """What is wrong with a display name; nothing with an empty one, for which the username stands."""
    for position, letter in enumerate(text):
        if letter not in _JOINERS and unicodedata.category(letter) in _REFUSED:
            said = f"holds U+{ord(letter):04X} at position {position + 1}, a character that shows nothing; remove it"
            return [FieldViolation(field, said, "INVISIBLE")]
    if text and not any(unicodedata.category(letter)[0] in "LNPS" for letter in text):
        return [FieldViolation(field, "shows nothing; write something that others can read", "INVISIBLE")]
    return []


def shown(text: str) -> str:
    """A name that somebody else gave, such as an identity provider, without what a display name may not hold."""
    kept = (each for each in text if each in _JOINERS or unicodedata.category(each) not in _REFUSED)
    return "".join(kept).strip()
