"""An answer of a model server on its way to a caller of the OpenAI API: the same bytes, and what they cost.

A stream passes by whole lines and is not parsed. A few searches in each block find the lines that may tell the use, an
error or the end; those alone are read, in an answer that goes well the last two.
"""

from espalier_chat.chunks import DONE, MAX_LINE_BYTES, data_of, load_chunk, nonsense, tokens_of

# As JSON stands in one line, with a space or without. Within a text the quotes would be escaped, so these are names.
_USE, _SPACED_USE, _ERROR = b'"usage":{', b'"usage": {', b'"error"'


class Passage:
    """One answer. `pieces` counts its events, which are tokens as a rule; they count where the server tells no use.

    `is_asked` is set while the model server has been asked and has not refused.
    """

    def __init__(self, *, keeps_use: bool = True) -> None:
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.pieces = 0
        self.is_asked = False
        self.has_ended = False
        self._keeps_use = keeps_use
        self._rest = b""

    def lines(self, block: bytes) -> bytes:
        """The whole lines that are there with this block; the rest waits for its end.

        An event that tells the use alone stays here where the caller did not ask for it. Raises UpstreamError for a
        line that tells an error, and for one without end.
        """
        data = self._rest + block if self._rest else block
        end = data.rfind(b"\n") + 1
        lines, self._rest = data[:end], data[end:]
        if len(self._rest) > MAX_LINE_BYTES:
            raise nonsense()
        self.pieces += lines.count(b"\n\n") or lines.count(b"\n\r\n")
        return self._read(lines) if DONE in lines or _may_tell(lines) else lines

    def read_whole(self, answer: bytes) -> None:
        """Notes what an answer in one piece tells. Raises UpstreamError."""
        self._note(answer)
        self.has_ended = True

    def _read(self, lines: bytes) -> bytes:
        kept = []
        for line in lines.splitlines(keepends=True):
            data = data_of(line)
            if data == DONE:
                self.has_ended = True
                kept.append(b"data: [DONE]\n\n")
                break
            if data is None or not _may_tell(data) or self._note(data) or self._keeps_use:
                kept.append(line)
        return b"".join(kept)

    def _note(self, data: bytes) -> bool:
        """Notes the use that a chunk tells; True when it tells more than that."""
        chunk = load_chunk(data)
        prompt_tokens, completion_tokens = tokens_of(chunk)
        if prompt_tokens is not None:
            self.prompt_tokens = prompt_tokens
        if completion_tokens is not None:
            self.completion_tokens = completion_tokens
        return bool(chunk.get("choices"))


def _may_tell(data: bytes) -> bool:
    return _USE in data or _SPACED_USE in data or _ERROR in data
