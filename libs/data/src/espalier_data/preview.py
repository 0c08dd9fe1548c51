"""What a row will look like to the model, before anything is trained: each token and whether it carries loss."""

from __future__ import annotations

from dataclasses import dataclass

from espalier_data.examples import Conversation, Example
from espalier_data.masking import IGNORED, tokenize_conversation, tokenize_text
from espalier_data.templates import ChatTemplate
from espalier_data.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """One token of the preview."""

    identity: int
    text: str
    """The token's own text; a token that holds part of a character shows U+FFFD."""
    is_trained: bool
    is_cut: bool
    """Beyond cutoff_len: the model never sees it."""


@dataclass(frozen=True, slots=True)
class Preview:
    """All tokens of one example."""

    tokens: tuple[PreviewToken, ...]

    @property
    def trained_share(self) -> float:
        """Share of the tokens within cutoff_len that carry loss, 0 to 1. At 0 the row teaches nothing."""
        seen = [token for token in self.tokens if not token.is_cut]
        return sum(token.is_trained for token in seen) / len(seen) if seen else 0.0


def preview(
    example: Example,
    *,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    cutoff_len: int,
    train_on_prompt: bool = False,
) -> Preview:
    """Tokens of the example exactly as training will have them. Raises TemplateError when the template refuses it."""
    if isinstance(example, Conversation):
        row = tokenize_conversation(example, tokenizer, template, train_on_prompt=train_on_prompt)
    else:
        row = tokenize_text(example, tokenizer)
    return Preview(
        tuple(
            PreviewToken(
                identity=identity,
                text=tokenizer.decode([identity]),
                is_trained=label != IGNORED,
                is_cut=index >= cutoff_len,
            )
            for index, (identity, label) in enumerate(zip(row.ids, row.labels, strict=True))
        )
    )
