"""Loss and perplexity of a model on token rows, exact to the token: every token with loss weighs the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from espalier_data.masking import IGNORED
from espalier_trainer.collective import agreed, summed
from espalier_trainer.data import Collator, TokenRows
from espalier_trainer.process import Place


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss in nats over `tokens` tokens."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite when that is beyond a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def values(self, label: str) -> dict[str, float]:
        """As metrics, under `<label>/…`."""
        return {f"{label}/loss": self.loss, f"{label}/perplexity": self.perplexity}


def measure(
    model: Any, validation: dict[str, TokenRows], collator: Collator, *, batch_size: int, place: Place
) -> dict[str, float]:
    """Loss and perplexity on each set of rows, as metrics under the set's label. Every rank must call it."""
    values: dict[str, float] = {}
    for label, rows in validation.items():
        values |= evaluate(model, rows, collator, batch_size=batch_size, place=place).values(label)
    return values


@torch.no_grad()
def evaluate(model: Any, rows: TokenRows, collator: Collator, *, batch_size: int, place: Place) -> Evaluation:
    """Measures the rows with all ranks, each its share. Every rank must call it, and makes as many forward passes."""
    mine = list(range(place.rank, len(rows), place.world_size))
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    was_training = model.training
    model.eval()
    loss = tokens = 0.0
    for number in range(agreed(len(batches))):
        # A rank whose share has run out keeps the others company: ZeRO-3 gathers weights in every forward pass.
        indices = batches[number] if number < len(batches) else [0]
        batch_loss, batch_tokens = _measure(model, collator([rows[index] for index in indices]))
        if number < len(batches):
            loss, tokens = loss + batch_loss, tokens + batch_tokens
    model.train(was_training)
    total = summed(tokens)
    return Evaluation(loss=summed(loss) / total if total else math.nan, tokens=int(total))


def _measure(model: Any, batch: dict[str, Any]) -> tuple[float, int]:
    device = next(model.parameters()).device
    labels = batch["labels"][:, 1:].to(device)
    ids, positions = batch["input_ids"].to(device), batch["position_ids"].to(device)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, :-1]
    kept = labels != IGNORED
    loss = functional.cross_entropy(logits[kept].float(), labels[kept], reduction="sum")
    return float(loss), int(kept.sum())
