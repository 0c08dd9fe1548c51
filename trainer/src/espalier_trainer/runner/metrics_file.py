"""Reading metrics.jsonl while it grows, and what it says about how far the training is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MAX_READ = 1 << 20
_SPEED_POINTS = 20


@dataclass(frozen=True)
class Line:
    """A complete line of a file that grows."""

    offset: int
    """Bytes before it."""
    data: bytes


class GrowingFile:
    """Hands out the complete lines that a file has gained since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, limit: int = _MAX_READ) -> list[Line]:
        """Lines of at most `limit` bytes in all; empty when nothing is new or the file is not there yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(limit)
        except OSError:
            return []
        lines = []
        for text in data.splitlines(keepends=True):
            if not text.endswith(b"\n"):
                break
            lines.append(Line(self._offset, text))
            self._offset += len(text)
        return lines


@dataclass(frozen=True)
class Point:
    """One line of metrics.jsonl."""

    step: int
    time: float
    epoch: float
    total_steps: int
    final: bool
    values: dict[str, float] = field(default_factory=dict)


def parse_point(data: bytes) -> Point | None:
    """The point of a line; None when the line is not one."""
    try:
        content = json.loads(data)
        return Point(
            step=int(content["step"]),
            time=float(content.get("time") or 0),
            epoch=float(content.get("epoch") or 0),
            total_steps=int(content.get("total_steps") or 0),
            final=bool(content.get("final")),
            values={str(name): _number(value) for name, value in content.get("values", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _number(value: Any) -> float:
    return float(value)  # the strings "NaN", "Infinity" and "-Infinity" are what float reads


class ProgressMeter:
    """How far the training is and when it will be done, from its metrics."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._recent: list[tuple[float, int]] = []
        self.step = 0
        self.total_steps = 0
        self.epoch = 0.0
        self.loss = 0.0
        self.tokens_per_second = 0.0

    def refresh(self) -> None:
        """Reads what is new."""
        while lines := self._file.read():
            for line in lines:
                point = parse_point(line.data)
                if point is not None:
                    self._take(point)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the pace of the last points; None while unknown."""
        if len(self._recent) < 2 or self.total_steps <= self.step:
            return None
        (t0, s0), (t1, s1) = self._recent[0], self._recent[-1]
        return (self.total_steps - self.step) * (t1 - t0) / (s1 - s0) if s1 > s0 and t1 > t0 else None

    def _take(self, point: Point) -> None:
        self.step = max(self.step, point.step)
        self.total_steps = point.total_steps or self.total_steps
        self.epoch = max(self.epoch, point.epoch)
        self.loss = point.values.get("train/loss", self.loss)
        self.tokens_per_second = point.values.get("train/tokens_per_second", self.tokens_per_second)
        if not self._recent or point.step > self._recent[-1][1]:
            self._recent = [*self._recent[-_SPEED_POINTS:], (point.time, point.step)]
