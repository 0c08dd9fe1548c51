"""Tokens with their loss mask: what is trained on, and what only conditions it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from espalier_data.examples import Conversation, Text
from espalier_data.templates import ChatTemplate
from espalier_data.tokenizer import TextTokenizer

IGNORED = -100
"""Label of a token that carries no loss, as PyTorch's cross entropy has it."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids and labels of one example; `label == id` where the loss is taken, else IGNORED."""

    ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> int:
        """Number of tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)


def tokenize_conversation(
    conversation: Conversation, tokenizer: TextTokenizer, template: ChatTemplate, *, train_on_prompt: bool = False
) -> TokenRow:
    """Tokens of the rendered conversation.

    The whole text is encoded at once, as a server does it, so that the ids are the same.
    A token counts as answer when it begins inside one.
    Raises TemplateError when the template refuses the conversation.
    """
    segments = template.segments(conversation)
    encoded = tokenizer.encode("".join(segment.text for segment in segments))
    if train_on_prompt:
        return TokenRow(ids=encoded.ids, labels=list(encoded.ids))
    answers = _AnswerRanges([(len(segment.text), segment.is_answer) for segment in segments])
    labels = [
        identity if end > start and answers.contains(start) else IGNORED
        for identity, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
    ]
    return TokenRow(ids=encoded.ids, labels=labels)


def tokenize_prompt(conversation: Conversation, tokenizer: TextTokenizer, template: ChatTemplate) -> list[int]:
    """Ids that a server gives the model before it answers."""
    return tokenizer.encode(template.render(conversation, add_generation_prompt=True)).ids


def tokenize_text(text: Text, tokenizer: TextTokenizer) -> TokenRow:
    """Tokens of a document and the token that ends it; all carry loss."""
    ids = [*tokenizer.encode(text.text).ids, tokenizer.document_end_id]
    return TokenRow(ids=ids, labels=list(ids))


def cut(row: TokenRow, cutoff_len: int) -> Iterator[TokenRow]:
    """The row in pieces of at most cutoff_len tokens; nothing is left out."""
    for start in range(0, len(row.ids), cutoff_len):
        yield TokenRow(row.ids[start : start + cutoff_len], row.labels[start : start + cutoff_len])


def truncate(row: TokenRow, cutoff_len: int) -> TokenRow:
    """The first cutoff_len tokens."""
    return row if len(row.ids) <= cutoff_len else TokenRow(row.ids[:cutoff_len], row.labels[:cutoff_len])


class _AnswerRanges:
    """Answers whether a character position lies in an answer; positions must be asked in rising order."""

    def __init__(self, stretches: list[tuple[int, bool]]) -> None:
        self._stretches = iter(stretches)
        self._end = 0
        self._is_answer = False

    def contains(self, position: int) -> bool:
        while position >= self._end:
            length, self._is_answer = next(self._stretches)
            self._end += length
        return self._is_answer
