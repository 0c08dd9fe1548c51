"""Tokenised rows on disk: written once, then mapped into memory by every rank, at 12 bytes a token."""

from __future__ import annotations

import json
import mmap
import shutil
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from espalier_data.packing import PackedRow

_COLUMNS = {"ids": "i", "labels": "i", "positions": "i", "offsets": "q"}
_META = "meta.json"


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """Totals of a store; `fingerprint` names what it was made from."""

    fingerprint: str
    rows: int
    tokens: int
    trained_tokens: int


def write_store(rows: Iterable[PackedRow], directory: Path, *, fingerprint: str) -> StoreMeta:
    """Writes the rows into a new directory, which appears whole or not at all; one of that name is replaced."""
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    count = tokens = trained = 0
    files = {name: (temporary / name).open("wb") for name in _COLUMNS}
    try:
        array("q", [0]).tofile(files["offsets"])
        for row in rows:
            count += 1
            tokens += len(row.ids)
            # The first token of an example is never predicted, so it carries no loss whatever its label.
            trained += sum(label >= 0 and place > 0 for label, place in zip(row.labels, row.positions, strict=True))
            values: dict[str, Sequence[int]] = {
                "ids": row.ids, "labels": row.labels, "positions": row.positions, "offsets": [tokens],
            }  # fmt: skip
            for name, column in values.items():
                array(_COLUMNS[name], column).tofile(files[name])
    finally:
        for file in files.values():
            file.close()
    meta = StoreMeta(fingerprint=fingerprint, rows=count, tokens=tokens, trained_tokens=trained)
    (temporary / _META).write_text(json.dumps(asdict(meta)), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    temporary.replace(directory)
    return meta


def read_meta(directory: Path) -> StoreMeta | None:
    """Totals of the store in that directory; None when there is no whole one."""
    try:
        return StoreMeta(**json.loads((directory / _META).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class TokenStore:
    """Random access to the rows of a store without reading it into memory."""

    def __init__(self, directory: Path) -> None:
        meta = read_meta(directory)
        if meta is None:
            raise FileNotFoundError(f"{directory} holds no token store")
        self.meta = meta
        self._columns = {name: _mapped(directory / name, code) for name, code in _COLUMNS.items()}

    def column(self, name: str) -> memoryview[int]:
        """A whole mapped column: `ids`, `labels`, `positions` are int32; `offsets` are int64, one more than rows."""
        return self._columns[name]

    def __len__(self) -> int:
        return self.meta.rows

    def __getitem__(self, index: int) -> PackedRow:
        if not 0 <= index < self.meta.rows:
            raise IndexError(index)
        start, end = self.column("offsets")[index : index + 2]
        return PackedRow(
            ids=self.column("ids")[start:end].tolist(),
            labels=self.column("labels")[start:end].tolist(),
            positions=self.column("positions")[start:end].tolist(),
        )


def _mapped(path: Path, code: str) -> memoryview[int]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return memoryview(array(code)).cast("B").cast(code)  # type: ignore[call-overload,no-any-return]
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(content).cast(code)  # type: ignore[call-overload,no-any-return]
