"""Errors of this package.

DataError                  the caller gave something that cannot be used; `reason` is stable, the text is for people
├── UnreadableFile         the file cannot be opened or read
├── UnknownFormat          no known row format fits the file
├── TemplateError          a chat template is unknown, does not compile, or refuses the messages
└── TokenizerError         a tokenizer directory cannot be used, or a tokenizer cannot be trained
"""

from __future__ import annotations

from typing import ClassVar


class DataError(ValueError):
    """Something given by the caller cannot be used; the message says what, where, and what to do."""

    reason: ClassVar[str] = "DATA_ERROR"


class UnreadableFile(DataError):
    """The file cannot be opened or read."""

    reason = "UNREADABLE_FILE"


class UnknownFormat(DataError):
    """No known row format fits the file."""

    reason = "UNKNOWN_FORMAT"


class TemplateError(DataError):
    """A chat template is unknown, does not compile, or refuses the messages."""

    reason = "TEMPLATE_ERROR"


class TokenizerError(DataError):
    """A tokenizer directory cannot be used, or a tokenizer cannot be trained from the text."""

    reason = "TOKENIZER_ERROR"
