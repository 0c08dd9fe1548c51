"""The demo's result: one table for people, `result.json` for programs. Every number was measured by the platform."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from espalier_client.errors import ClientError
from espalier_client.output import duration, number, table_of

MODELS = ("base", "tuned")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the demo measured. `heldout` and `seen`: by model, "loss", "perplexity" and "rouge_l"."""

    heldout: dict[str, dict[str, float]]
    seen: dict[str, dict[str, float]]
    resume: dict[str, int]
    runs: list[str]
    tokens_per_second: dict[str, float]
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The content of result.json."""
        return {
            "heldout": self.heldout,
            "seen": self.seen,
            "resume": self.resume,
            "runs": self.runs,
            "tokens_per_second": self.tokens_per_second,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
        }

    def write(self, path: Path) -> None:
        """Writes result.json, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.as_json(), indent=2) + "\n", "utf-8")
        temporary.replace(path)

    def quality_table(self) -> Table:
        """Base and tuned model side by side."""
        rows = [
            (
                title,
                *(number(values[model][key]) for values in (self.heldout, self.seen) for model in MODELS),
            )
            for title, key in (
                ("loss (nats a token)", "loss"),
                ("perplexity", "perplexity"),
                ("answer overlap (ROUGE-L)", "rouge_l"),
            )
        ]
        columns = ("", "held-out: base", "held-out: tuned", "seen: base", "seen: tuned")
        return table_of(columns, rows, title="What the tuning did")

    def cost_table(self) -> Table:
        """Speed and time of each stage."""
        speed = self.tokens_per_second
        rows = [
            (stage, duration(seconds), f"{speed[stage]:,.0f}" if stage in speed else "")
            for stage, seconds in self.seconds.items()
        ]
        return table_of(("stage", "time", "tokens/s"), rows, title="What it cost")


def evaluation(points: list[dict[str, Any]], label: str) -> dict[str, dict[str, float]]:
    """Loss and perplexity before the first step ("base") and after the last ("tuned") on one validation file."""
    measured = [point for point in points if f"eval_{label}/loss" in point["values"]]
    if len(measured) < 2:
        raise ClientError(f"The run measured {len(measured)} times on {label!r}; before and after are needed.")
    ends = {"base": measured[0], "tuned": measured[-1]}
    return {
        model: {name: float(point["values"][f"eval_{label}/{name}"]) for name in ("loss", "perplexity")}
        for model, point in ends.items()
    }


def curve(points: list[dict[str, Any]], *, around: int) -> list[tuple[int, int, float]]:
    """Step, attempt and training loss of the points next to a step: where a resumed curve goes on."""
    losses = [point for point in points if "train/loss" in point["values"]]
    before = [point for point in losses if point["step"] <= around][-3:]
    after = [point for point in losses if point["step"] > around][:3]
    return [(point["step"], point["attempt"], float(point["values"]["train/loss"])) for point in (*before, *after)]


def mean_speed(points: list[dict[str, Any]]) -> float:
    """Tokens trained a second, over all ranks: the mean of what was measured."""
    found = [float(point["values"]["train/tokens_per_second"]) for point in points if _has_speed(point)]
    if not found:
        raise ClientError("The run measured no speed.")
    return sum(found) / len(found)


def _has_speed(point: dict[str, Any]) -> bool:
    return "train/tokens_per_second" in point["values"]
