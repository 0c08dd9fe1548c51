"""From token ids to text that can be sent: whole characters only, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"


class TokenText:
    """Text of a growing row of ids. A character that is spread over several tokens comes when it is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Tokens before `_start` are out of sight; those up to `_told` are context: some decoders need the token before.
        self._start = 0
        self._told = 0

    def add(self, identity: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        self._ids.append(identity)
        before = self._decode(self._ids[self._start : self._told])
        now = self._decode(self._ids[self._start :])
        if now.endswith(_BROKEN) and len(self._ids) - self._told < 8:  # longer than any character: truly broken
            return ""
        self._start, self._told = self._told, len(self._ids)
        return now[len(before) :]

    def close(self) -> str:
        """What is left, without a character that never became whole."""
        before = self._decode(self._ids[self._start : self._told])
        rest = self._decode(self._ids[self._start :])[len(before) :]
        self._start = self._told = len(self._ids)
        return rest.rstrip(_BROKEN)


class StopText:
    """Holds back what may be the beginning of a stop text, and cuts at the first that is complete."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """The part of the text that can be sent; nothing any more once a stop text was found."""
        if self.found:
            return ""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            return self._release(min(places))
        return self._release(len(self._held) - self._possible())

    def close(self) -> str:
        """What was held back and became no stop text."""
        return "" if self.found else self._release(len(self._held))

    def _release(self, length: int) -> str:
        sent, self._held = self._held[:length], self._held[length:]
        return sent

    def _possible(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
