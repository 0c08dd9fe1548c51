"""Several examples in one row of cutoff_len tokens, so that almost no step is spent on padding.

Examples in a pack do not see each other: each one's positions start at 0, and attention is cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from espalier_data.masking import TokenRow, cut, truncate

_WINDOW = 1024
"""Examples looked at together; larger packs tighter but moves examples further from their place."""


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Concatenated examples; `positions` start again at 0 with each."""

    ids: list[int]
    labels: list[int]
    positions: list[int]


def single(row: TokenRow) -> PackedRow:
    """A pack of one."""
    return PackedRow(row.ids, row.labels, list(range(len(row.ids))))


def pack_documents(rows: Iterable[TokenRow], cutoff_len: int) -> Iterator[PackedRow]:
    """Pre-training: one endless stream of documents, cut every cutoff_len tokens. The last row may be shorter."""
    ids: list[int] = []
    labels: list[int] = []
    for row in rows:
        ids += row.ids
        labels += row.labels
        whole = len(ids) - len(ids) % cutoff_len
        for piece in cut(TokenRow(ids[:whole], labels[:whole]), cutoff_len):
            yield single(piece)
        del ids[:whole], labels[:whole]
    if len(ids) > 1:
        yield single(TokenRow(ids, labels))


def pack_examples(rows: Iterable[TokenRow], cutoff_len: int) -> Iterator[PackedRow]:
    """Fine-tuning: whole examples put together, best fit first, inside a window; longer ones are truncated."""
    window: list[TokenRow] = []
    for row in rows:
        window.append(truncate(row, cutoff_len))
        if len(window) == _WINDOW:
            yield from _best_fit(window, cutoff_len)
            window = []
    yield from _best_fit(window, cutoff_len)


def _best_fit(rows: list[TokenRow], cutoff_len: int) -> Iterator[PackedRow]:
    """Best fit decreasing; ties go to the earlier pack, so that the same rows always give the same packs."""
    packs: list[list[TokenRow]] = []
    by_room: list[list[int]] = [[] for _ in range(cutoff_len + 1)]
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        size = len(row.ids)
        room = next((room for room in range(size, cutoff_len + 1) if by_room[room]), None)
        if room is None:
            packs.append([row])
            by_room[cutoff_len - size].append(len(packs) - 1)
        else:
            chosen = by_room[room].pop(0)
            packs[chosen].append(row)
            by_room[room - size].append(chosen)
    yield from (_joined(pack) for pack in packs)


def _joined(rows: list[TokenRow]) -> PackedRow:
    return PackedRow(
        ids=[identity for row in rows for identity in row.ids],
        labels=[label for row in rows for label in row.labels],
        positions=[position for row in rows for position in range(len(row.ids))],
    )
