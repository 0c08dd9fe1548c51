"""Templates, masks, tokenizers and packs: what is trained is the answers, nothing is lost, and the bytes come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from espalier_data import (
    Conversation,
    Message,
    Role,
    TemplateError,
    Text,
    TokenizerError,
    chat_template,
    template_names,
)
from espalier_data.masking import IGNORED, TokenRow, tokenize_conversation, tokenize_prompt, tokenize_text
from espalier_data.packing import pack_documents, pack_examples
from espalier_data.preview import preview
from espalier_data.templates import ChatTemplate
from espalier_data.token_store import TokenStore, read_meta, write_store
from espalier_data.tokenizer import TextTokenizer, load_tokenizer, save_tokenizer, train_tokenizer

CONVERSATION = Conversation(
    (
        Message(Role.SYSTEM, "Be kind."),
        Message(Role.USER, "Grüß dich 漢字 🙂"),
        Message(Role.ASSISTANT, "Hello 漢 there"),
        Message(Role.USER, "Bye"),
        Message(Role.ASSISTANT, "See you 🙂"),
    )
)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    texts = ["Hello there, be kind; see you. Grüß dich 漢字 🙂"] * 20
    every = dict.fromkeys(token for name in template_names() for token in chat_template(name).special_tokens)
    template = replace(chat_template("chatml"), special_tokens=tuple(every))
    return train_tokenizer(texts, vocab_size=500, template=template)


@pytest.mark.parametrize("name", template_names())
def test_the_trained_tokens_are_exactly_the_answers(tokenizer: TextTokenizer, name: str) -> None:
    template = tokenizer.template(name)
    row = tokenize_conversation(CONVERSATION, tokenizer, template)
    end = template.end_of_turn
    trained = tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert trained == f"Hello 漢 there{end}See you 🙂{end}"
    assert tokenizer.decode(row.ids) == template.render(CONVERSATION)


@pytest.mark.parametrize("name", template_names())
def test_training_begins_with_the_ids_that_a_server_prompts_with(tokenizer: TextTokenizer, name: str) -> None:
    template = tokenizer.template(name)
    prompt = tokenize_prompt(Conversation(CONVERSATION.messages[:2]), tokenizer, template)
    assert tokenize_conversation(CONVERSATION, tokenizer, template).ids[: len(prompt)] == prompt


def test_a_template_whose_markup_the_vocabulary_lacks_is_refused() -> None:
    small = train_tokenizer(["some text"], vocab_size=300, template=chat_template("chatml"))
    with pytest.raises(TokenizerError, match=r"<\|eot_id\|> of the chat template llama3"):
        small.template("llama3")


def test_train_on_prompt_trains_on_everything(tokenizer: TextTokenizer) -> None:
    row = tokenize_conversation(CONVERSATION, tokenizer, chat_template("chatml"), train_on_prompt=True)
    assert row.labels == row.ids


def test_a_template_without_marks_is_masked_turn_by_turn(tokenizer: TextTokenizer) -> None:
    source = chat_template("llama3").source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    plain = ChatTemplate(name="model", source=source, end_of_turn="<|eot_id|>")
    assert tokenize_conversation(CONVERSATION, tokenizer, plain) == tokenize_conversation(
        CONVERSATION, tokenizer, chat_template("llama3")
    )


def test_a_template_that_rewrites_history_is_refused() -> None:
    source = "{{ messages|length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TemplateError, match="rewrites earlier turns"):
        ChatTemplate(name="model", source=source, end_of_turn="").segments(CONVERSATION)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for i in range(100000000) %}{% endfor %}",
        "{{ messages[99]['content'] }}",
        "{{ raise_exception('only two turns') }}",
    ],
)
def test_a_hostile_or_failing_template_is_refused(source: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(name="bad", source=source, end_of_turn="").render(CONVERSATION)


def test_a_template_that_does_not_compile_names_its_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        ChatTemplate(name="bad", source="x\n{% for %}", end_of_turn="").render(CONVERSATION)


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(TemplateError, match="chatml"):
        chat_template("nope")


@pytest.mark.parametrize("text", ["", "plain", " lead and trail \n", "\x01\x7f é 漢字 🙂\u200d", "<|im_end|>"])
def test_any_text_decodes_to_itself(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.eos_token, loaded.pad_token, loaded.template_source) == (
        tokenizer.eos_token,
        tokenizer.pad_token,
        tokenizer.template_source,
    )
    template = chat_template("chatml")
    assert tokenize_conversation(CONVERSATION, loaded, loaded.own_template()) == tokenize_conversation(
        CONVERSATION, tokenizer, template
    )


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_training_a_tokenizer_needs_text_and_room() -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train_tokenizer([], vocab_size=500, template=chat_template("chatml"))
    with pytest.raises(TokenizerError, match="at least"):
        train_tokenizer(["x"], vocab_size=100, template=chat_template("chatml"))


def test_the_preview_shows_what_training_gets(tokenizer: TextTokenizer) -> None:
    template = chat_template("chatml")
    shown = preview(CONVERSATION, tokenizer=tokenizer, template=template, cutoff_len=10)
    row = tokenize_conversation(CONVERSATION, tokenizer, template)
    assert [token.identity for token in shown.tokens] == row.ids
    assert [token.is_trained for token in shown.tokens] == [label != IGNORED for label in row.labels]
    assert [token.is_cut for token in shown.tokens].index(True) == 10
    assert shown.trained_share == 0.0


def test_documents_are_packed_without_loss(tokenizer: TextTokenizer) -> None:
    rows = [tokenize_text(Text("Hello there " * n), tokenizer) for n in range(1, 20)]
    packed = list(pack_documents(rows, 16))
    assert [identity for row in packed for identity in row.ids] == [identity for row in rows for identity in row.ids]
    assert all(len(row.ids) == 16 for row in packed[:-1])


def test_examples_are_packed_whole_with_positions_from_zero() -> None:
    rows = [TokenRow([n] * n, [n] * n) for n in (7, 3, 5, 9, 2, 1, 30)]
    packed = list(pack_examples(rows, 10))
    assert all(len(row.ids) <= 10 for row in packed)
    assert sorted(identity for row in packed for identity in row.ids) == sorted(
        identity for row in rows for identity in row.ids[:10]
    )
    assert sum(row.positions.count(0) for row in packed) == len(rows)
    assert len(packed) == 4


def test_a_store_gives_back_its_rows(tmp_path: Path) -> None:
    rows = list(pack_examples([TokenRow([n] * n, [IGNORED] * n) for n in range(1, 30)], 32))
    meta = write_store(rows, tmp_path / "store", fingerprint="abc")
    store = TokenStore(tmp_path / "store")
    assert [store[index] for index in range(len(store))] == rows
    assert read_meta(tmp_path / "store") == meta
    assert (meta.rows, meta.tokens, meta.trained_tokens) == (len(rows), sum(range(1, 30)), 0)
    assert read_meta(tmp_path / "other") is None
