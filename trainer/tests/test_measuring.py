"""Losses are exact to the token: packing changes nothing, and every token weighs the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerControl, TrainerState, TrainingArguments

from espalier_data import Conversation, Message, Role, chat_template
from espalier_data.masking import IGNORED, TokenRow, tokenize_conversation
from espalier_data.packing import pack_examples, single
from espalier_data.token_store import write_store
from espalier_data.tokenizer import save_tokenizer, train_tokenizer
from espalier_trainer.data import Collator, TokenRows
from espalier_trainer.errors import LossError
from espalier_trainer.evaluation import evaluate
from espalier_trainer.metrics import MetricsCallback, MetricsFile, TokenFile, TokenMeter
from espalier_trainer.process import Place
from espalier_trainer.run_file import RunFile

ALONE = Place(rank=0, local_rank=0, world_size=1)
ROWS = [TokenRow(list(range(2, 2 + n)), [IGNORED] * 2 + list(range(4, 2 + n))) for n in (3, 5, 9, 14, 20, 4)]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _store(tmp_path: Path, *, packed: bool) -> TokenRows:
    rows = pack_examples(ROWS, 24) if packed else (single(row) for row in ROWS)
    write_store(rows, tmp_path / f"store-{packed}", fingerprint="")
    return TokenRows(tmp_path / f"store-{packed}")


def test_packed_examples_have_the_loss_that_each_has_alone(tmp_path: Path, model: Any) -> None:
    collator = Collator(pad_id=0)
    packed = evaluate(model, _store(tmp_path, packed=True), collator, batch_size=2, place=ALONE)
    apart = evaluate(model, _store(tmp_path, packed=False), collator, batch_size=1, place=ALONE)
    padded = evaluate(model, _store(tmp_path, packed=False), collator, batch_size=6, place=ALONE)
    assert packed.tokens == apart.tokens == padded.tokens == sum(row.trained for row in ROWS)
    assert packed.loss == pytest.approx(apart.loss, abs=1e-5)
    assert padded.loss == pytest.approx(apart.loss, abs=1e-5)


def test_the_loss_is_the_mean_over_tokens(tmp_path: Path, model: Any) -> None:
    total = 0.0
    for row in ROWS:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum")
        total += float(loss)
    found = evaluate(model, _store(tmp_path, packed=False), Collator(pad_id=0), batch_size=4, place=ALONE)
    assert found.loss == pytest.approx(total / found.tokens, abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert model.training


def test_the_arrow_form_has_the_same_rows(tmp_path: Path) -> None:
    rows = _store(tmp_path, packed=True)
    assert [row for row in rows.as_dataset()] == [rows[index] for index in range(len(rows))]


def test_transformers_renders_and_masks_as_we_do(tmp_path: Path) -> None:
    template = chat_template("chatml")
    tokenizer = train_tokenizer(["hello world, how are you"] * 9, vocab_size=330, template=template)
    save_tokenizer(tokenizer, tmp_path)
    turns = [(Role.SYSTEM, "Be kind é"), (Role.USER, "hello"), (Role.ASSISTANT, "world 🙂")] * 1
    conversation = Conversation(tuple(Message(role, content) for role, content in turns))
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        conversation.as_dicts(), return_dict=True, return_assistant_tokens_mask=True
    )
    ours = tokenize_conversation(conversation, tokenizer, template)
    assert theirs["input_ids"] == ours.ids
    assert theirs["assistant_masks"] == [int(label != IGNORED) for label in ours.labels]


def test_numbers_that_json_lacks_are_written_as_strings_and_end_the_run(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    run = RunFile.model_validate(
        {
            "run_id": "r",
            "stage": "pt",
            "output_dir": str(tmp_path),
            "model": {"source": "scratch"},
            "datasets": [{"path": "text.jsonl", "format": "text"}],
            "cutoff_len": 64,
        }
    )
    callback = MetricsCallback(run, file, meter=TokenMeter(), place=ALONE, measure=dict)
    state = TrainerState(global_step=3, max_steps=9, epoch=0.5)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(LossError, match="became NaN at step 3"):
        callback.on_log(arguments, state, TrainerControl(), logs={"loss": math.nan, "grad_norm": math.inf})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["step"], line["total_steps"], line["epoch"]) == (3, 9, 0.5)
    assert (line["values"]["train/loss"], line["values"]["train/grad_norm"]) == ("NaN", "Infinity")


def test_the_count_of_tokens_is_in_a_file_before_the_next_micro_batch(tmp_path: Path) -> None:
    file = tmp_path / "counts" / "rank-0"
    meter = TokenMeter(before=100, file=TokenFile(file))
    for tokens, counted in ((20, 20), (1, 21)):
        meter.add(tokens)
        assert int(file.read_text()) == counted


def test_tokens_of_earlier_attempts_count() -> None:
    meter = TokenMeter(before=100)
    meter.add(20)
    assert meter.read()[0] == 120
