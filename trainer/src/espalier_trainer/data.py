"""Token rows for the ranks: rank 0 tokenises every file once through espalier_data, all ranks map the result."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from espalier_data import Conversation, DataError, Example, Text, chat_template, read_rows
from espalier_data.masking import IGNORED, TokenRow, cut, tokenize_conversation, tokenize_text, truncate
from espalier_data.packing import PackedRow, pack_documents, pack_examples, single
from espalier_data.templates import ChatTemplate
from espalier_data.token_store import TokenStore, read_meta, write_store
from espalier_data.tokenizer import TextTokenizer, load_tokenizer, save_tokenizer, train_tokenizer
from espalier_trainer.collective import on_first_rank
from espalier_trainer.errors import ConfigError
from espalier_trainer.process import Place
from espalier_trainer.run_file import DatasetEntry, RunFile

_TRAIN = "train"


class TokenRows(Dataset[PackedRow]):
    """The rows of one token store as torch wants them."""

    def __init__(self, directory: Path) -> None:
        self.store = TokenStore(directory)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        row = self.store[index]
        return {"input_ids": row.ids, "labels": row.labels, "position_ids": row.positions}

    def as_dataset(self) -> Any:
        """The same rows as a Hugging Face dataset over the same memory, for libraries that insist on one."""
        import pyarrow  # type: ignore[import-untyped]
        from datasets import Dataset as ArrowDataset

        offsets = pyarrow.Array.from_buffers(
            pyarrow.int64(), len(self) + 1, [None, pyarrow.py_buffer(self.store.column("offsets"))]
        )
        columns = {}
        for name, column in (("input_ids", "ids"), ("labels", "labels"), ("position_ids", "positions")):
            buffers = [None, pyarrow.py_buffer(self.store.column(column))]
            values = pyarrow.Array.from_buffers(pyarrow.int32(), self.store.meta.tokens, buffers)
            columns[name] = pyarrow.LargeListArray.from_arrays(offsets, values)
        return ArrowDataset(pyarrow.table(columns))


@dataclass(frozen=True, slots=True)
class Data:
    """All that is trained on and measured."""

    train: TokenRows
    validation: dict[str, TokenRows]
    """By the first part of the metric's name: `eval`, `eval_<name>`."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the training rows or their order."""
        return self.train.store.meta.fingerprint


def prepare_tokenizer(run: RunFile, place: Place, base: Path | None) -> tuple[TextTokenizer, ChatTemplate]:
    """The run's tokenizer and template, kept in `<output_dir>/tokenizer`; from scratch it is trained first."""
    directory = run.output_dir / "tokenizer"
    on_first_rank(place, lambda: _write_tokenizer(run, base, directory))
    try:
        tokenizer = load_tokenizer(directory)
        return tokenizer, tokenizer.template(run.template)
    except DataError as error:
        raise ConfigError(str(error)) from error


def prepare_data(run: RunFile, place: Place, tokenizer: TextTokenizer, template: ChatTemplate) -> Data:
    """Tokenises what is not tokenised yet. Raises ConfigError when nothing is left to train on."""
    root = run.output_dir / "tokens"
    splits: dict[str, list[DatasetEntry]] = {}
    for entry in run.datasets:
        splits.setdefault(_TRAIN if entry.split == "train" else entry.label, []).append(entry)

    def tokenize() -> None:
        for label, entries in splits.items():
            _write_split(run, entries, root / label, tokenizer=tokenizer, template=template)

    on_first_rank(place, tokenize)
    rows = {label: TokenRows(root / label) for label in splits}
    return Data(train=rows.pop(_TRAIN), validation=rows)


@dataclass(frozen=True, slots=True)
class Collator:
    """Puts rows into one batch, padded to its longest.

    Packed examples are told apart by their positions, so there is no attention mask; each token of padding is at
    position 0 and so sees and is seen by nothing. The first token of an example has no predecessor and carries no loss.
    """

    pad_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        labels = _padded(rows, "labels", width=width, filler=IGNORED)
        positions = _padded(rows, "position_ids", width=width, filler=0)
        return {
            "input_ids": _padded(rows, "input_ids", width=width, filler=self.pad_id),
            "labels": labels.masked_fill(positions == 0, IGNORED),
            "position_ids": positions,
            "real_tokens": sum(len(row["input_ids"]) for row in rows),
        }


def _padded(rows: list[dict[str, Any]], name: str, *, width: int, filler: int) -> torch.Tensor:
    return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in rows], dtype=torch.long)


def _write_tokenizer(run: RunFile, base: Path | None, directory: Path) -> None:
    if (directory / "tokenizer_config.json").is_file():
        return
    temporary = directory.with_name("tokenizer.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if base is None:
            template = chat_template(run.template)
            size = run.model.tokenizer.vocab_size
            tokenizer = train_tokenizer(_train_texts(run), vocab_size=size, template=template)
        else:
            tokenizer = load_tokenizer(base)
            tokenizer = tokenizer.with_template(tokenizer.template(run.template))
        save_tokenizer(tokenizer, temporary)
    except DataError as error:
        raise ConfigError(str(error)) from error
    shutil.rmtree(directory, ignore_errors=True)
    temporary.rename(directory)


def _train_texts(run: RunFile) -> Iterator[str]:
    for entry in run.datasets:
        if entry.split == "train":
            for _, example in _examples(entry):
                yield from _contents(example)


def _contents(example: Example) -> Iterable[str]:
    return (example.text,) if isinstance(example, Text) else (message.content for message in example.messages)


def _examples(entry: DatasetEntry) -> Iterator[tuple[int, Example]]:
    """Usable rows with their line numbers. Broken ones are in the dataset report; here they are only left out."""
    for row in read_rows(entry.path, entry.format):
        if row.example is not None:
            yield row.line, row.example


def _write_split(
    run: RunFile, entries: list[DatasetEntry], directory: Path, *, tokenizer: TextTokenizer, template: ChatTemplate
) -> None:
    try:
        fingerprint = _fingerprint(run, entries, tokenizer, template)
        meta = read_meta(directory)
        if meta is None or meta.fingerprint != fingerprint:
            rows = chain.from_iterable(_rows(run, entry, tokenizer, template) for entry in entries)
            meta = write_store(_packed(run, rows), directory, fingerprint=fingerprint)
    except DataError as error:
        raise ConfigError(f"the data cannot be used: {error}") from error
    if not meta.trained_tokens:
        names = ", ".join(entry.path.name for entry in entries)
        raise ConfigError(
            f"{names}: no token with loss is left; look at the dataset report, and at cutoff_len ({run.cutoff_len})"
        )
    print(f"{directory.name}: {meta.rows} rows of {meta.tokens} tokens, {meta.trained_tokens} with loss", flush=True)  # noqa: T201


def _rows(run: RunFile, entry: DatasetEntry, tokenizer: TextTokenizer, template: ChatTemplate) -> Iterator[TokenRow]:
    without_loss = 0
    on_prompt = run.hyperparameters.train_on_prompt
    for line, example in _examples(entry):
        if run.stage == "pt":
            yield tokenize_text(Text("\n\n".join(_contents(example))), tokenizer)
            continue
        if not isinstance(example, Conversation):
            raise ConfigError(f"{entry.path.name}, line {line}: a text has no answers to train on; use stage pt")
        row = truncate(tokenize_conversation(example, tokenizer, template, train_on_prompt=on_prompt), run.cutoff_len)
        if row.trained:
            yield row
        else:
            without_loss += 1
    if without_loss:
        print(f"{entry.path.name}: {without_loss} rows have no answer within cutoff_len and are left out", flush=True)  # noqa: T201


def _packed(run: RunFile, rows: Iterator[TokenRow]) -> Iterator[PackedRow]:
    if run.stage == "pt" and run.packing:
        return pack_documents(rows, run.cutoff_len)
    if run.packing:
        return pack_examples(rows, run.cutoff_len)
    return (single(piece) for row in rows for piece in cut(row, run.cutoff_len) if len(piece.ids) > 1)


def _fingerprint(run: RunFile, entries: list[DatasetEntry], tokenizer: TextTokenizer, template: ChatTemplate) -> str:
    content = {
        "files": [(_file_hash(entry.path), entry.format.value) for entry in entries],
        "tokenizer": hashlib.sha256(tokenizer.tokenizer.to_str().encode()).hexdigest(),
        "template": template.source,
        "settings": [run.stage, run.cutoff_len, run.packing, run.hyperparameters.train_on_prompt],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"the data file {path} cannot be read: {error.strerror or error}") from error
