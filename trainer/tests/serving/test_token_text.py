"""Whole characters, and stop texts that never show."""

from __future__ import annotations

import pytest

from espalier_trainer.serving.token_text import StopText, TokenText


def by_bytes(ids: object) -> str:
    return bytes(ids).decode("utf-8", errors="replace")  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("text", ["plain", "Hé 🙂!", "🙂🙂", "日本語", "e\u0301", ""])
def test_pieces_are_whole_characters_and_add_up(text: str) -> None:
    stream = TokenText(by_bytes)
    pieces = [stream.add(byte) for byte in text.encode()]
    assert "".join(pieces) + stream.close() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_character_do_not_block_the_rest() -> None:
    stream = TokenText(by_bytes)
    pieces = [stream.add(byte) for byte in b"\x80" * 9 + b"ok"]
    assert ("".join(pieces) + stream.close()).endswith("ok")


def test_a_character_that_never_became_whole_is_left_out() -> None:
    stream = TokenText(by_bytes)
    pieces = [stream.add(byte) for byte in "a🙂".encode()[:-1]]
    assert "".join(pieces) + stream.close() == "a"


@pytest.mark.parametrize(
    ("stops", "pieces", "sent", "found"),
    [
        (["END"], ["abE", "N", "Dxyz", "more"], "ab", True),
        (["END"], ["abE", "N", "xyz"], "abENxyz", False),
        (["bb", "a"], ["xbba"], "x", True),
        (["aab"], ["aa", "ab"], "a", True),
        ([], ["as it is"], "as it is", False),
    ],
)
def test_stop_texts_are_found_across_pieces(stops: list[str], pieces: list[str], sent: str, found: bool) -> None:
    text = StopText(stops)
    assert "".join(text.add(piece) for piece in pieces) + text.close() == sent
    assert text.found is found


def test_nothing_is_held_back_that_cannot_be_a_stop_text() -> None:
    text = StopText(["END"])
    assert text.add("abE") == "ab"
    assert text.add("x") == "Ex"
