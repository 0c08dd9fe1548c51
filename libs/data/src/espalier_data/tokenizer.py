"""Tokenizers: training a byte-level BPE, reading and writing the directory form that `transformers` and vLLM load."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from espalier_data.errors import TokenizerError
from espalier_data.examples import Role
from espalier_data.templates import ChatTemplate, chat_template, check_template

DOCUMENT_END = "<|endoftext|>"
"""Ends every document in pre-training; also the padding of tokenizers that we train."""
OWN_TEMPLATE = "model"
"""Names the chat template that came with a model."""
MIN_VOCAB_SIZE = 300
"""256 bytes, the special tokens, and something to learn."""
_UNBOUNDED = 1_000_000_000
_ROLE_REPEATS = 10_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids with the character range of each in the text."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A tokenizer with the names of its special tokens and the chat template that it carries, if any."""

    tokenizer: Tokenizer
    eos_token: str
    pad_token: str
    bos_token: str = ""
    template_source: str = ""

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self.token_id(self.pad_token)

    @property
    def document_end_id(self) -> int:
        """Id of the token between the documents of pre-training."""
        own = self.tokenizer.token_to_id(DOCUMENT_END)
        return int(own) if own is not None else self.token_id(self.eos_token)

    def token_id(self, token: str) -> int:
        """Id of that token. Raises TokenizerError when the vocabulary lacks it."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise TokenizerError(f"the tokenizer has no token {token!r}")
        return int(found)

    def encode(self, text: str) -> Encoded:
        """Tokens of the text as it stands: nothing is added, special tokens in the text are recognised."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return Encoded(ids=list(encoding.ids), offsets=list(encoding.offsets))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def stop_ids(self, template: ChatTemplate) -> list[int]:
        """Ids at which generation ends: the template's end of turn, the end of text and of a document."""
        names = dict.fromkeys((template.end_of_turn, self.eos_token, DOCUMENT_END))
        found = [self.tokenizer.token_to_id(name) for name in names if name]
        return [int(identity) for identity in found if identity is not None]

    def template(self, name: str) -> ChatTemplate:
        """The chat template of that name, ready for this tokenizer; `model` = the one that came with it.

        Raises TemplateError for an unknown name, TokenizerError when the vocabulary lacks tokens of the markup.
        """
        if name == OWN_TEMPLATE:
            return self.own_template()
        found = chat_template(name)
        lacking = [token for token in found.special_tokens if self.tokenizer.token_to_id(token) is None]
        if lacking:
            raise TokenizerError(
                f"the model's tokenizer lacks {', '.join(lacking)} of the chat template {name}; choose the template "
                f"`{OWN_TEMPLATE}` (the model's own) or `alpaca` (plain text)"
            )
        return replace(
            found,
            end_of_turn=found.end_of_turn or self.eos_token,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
        )

    def own_template(self) -> ChatTemplate:
        """The chat template that came with the tokenizer. Raises TokenizerError when there is none."""
        if not self.template_source:
            raise TokenizerError("the model carries no chat template; name one of the built-in templates")
        return ChatTemplate(
            name=OWN_TEMPLATE,
            source=self.template_source,
            end_of_turn=self.eos_token,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
        )

    def with_template(self, template: ChatTemplate) -> TextTokenizer:
        """The same tokenizer carrying that chat template, ending its turns as the template does."""
        known = self.tokenizer.token_to_id(template.end_of_turn) is not None
        eos_token = template.end_of_turn if known else self.eos_token
        return replace(self, template_source=template.source, eos_token=eos_token)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, template: ChatTemplate) -> TextTokenizer:
    """Trains a byte-level BPE on the texts; the template's special tokens are part of the vocabulary.

    Any text can be encoded by it and decodes to itself.
    Raises TokenizerError when vocab_size is too small or there is no text.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise TokenizerError(f"vocab_size is {vocab_size}; a byte-level tokenizer needs at least {MIN_VOCAB_SIZE}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys((DOCUMENT_END, *template.special_tokens))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    counted = _Counted(texts)
    # The roles stand in every conversation, so each becomes one token.
    roles = [f"{role.value}\n" for role in Role for _ in range(_ROLE_REPEATS)]
    tokenizer.train_from_iterator(chain(roles, counted), trainer)
    if not counted.characters:
        raise TokenizerError("there is no text to train a tokenizer on")
    return TextTokenizer(
        tokenizer=tokenizer,
        eos_token=template.end_of_turn or DOCUMENT_END,
        pad_token=DOCUMENT_END,
        template_source=template.source,
    )


class _Counted:
    """Passes texts on and counts their characters."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.characters += len(text)
            yield text


def load_tokenizer(directory: Path) -> TextTokenizer:
    """Reads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` of a model directory; runs no code.

    Raises TokenizerError when a file is missing or cannot be read.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"{directory} has no tokenizer.json; only models with a fast tokenizer can be used")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise TokenizerError(f"{path} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    config = _read_config(directory)
    eos_token = _token(config, "eos_token") or (DOCUMENT_END if tokenizer.token_to_id(DOCUMENT_END) is not None else "")
    if not eos_token or tokenizer.token_to_id(eos_token) is None:
        raise TokenizerError(f"{directory}: tokenizer_config.json names no eos_token that the vocabulary has")
    return TextTokenizer(
        tokenizer=tokenizer,
        eos_token=eos_token,
        pad_token=_token(config, "pad_token") or eos_token,
        bos_token=_token(config, "bos_token"),
        template_source=_template_source(directory, config),
    )


def save_tokenizer(tokenizer: TextTokenizer, directory: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` (with the chat template) as `AutoTokenizer` reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.tokenizer.save(str(directory / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.bos_token or None,
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _UNBOUNDED,
    }
    if tokenizer.template_source:
        config["chat_template"] = tokenizer.template_source
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise TokenizerError(f"{path} holds no JSON object")
    return config


def _token(config: dict[str, Any], name: str) -> str:
    """A special token, which Hugging Face writes as a string or as an object with `content`."""
    value = config.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _template_source(directory: Path, config: dict[str, Any]) -> str:
    path = directory / "chat_template.jinja"
    source = path.read_text("utf-8") if path.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several named templates; the one for chat is called default
        source = next((entry.get("template") for entry in source if entry.get("name") == "default"), None)
    if not isinstance(source, str):
        return ""
    check_template(source)
    return source
