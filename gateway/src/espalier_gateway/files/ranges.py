"""The Range header (RFC 9110 §14), one range of bytes at a time."""

import re

from espalier_gateway.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def read_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None when the whole file is to be sent.

    Several ranges, other units and malformed headers are ignored, as the RFC allows. Raises RangeNotSatisfiable.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        first, last = max(0, size - length), size
    else:
        first, last = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < int(found[1]):
            return None
    if first >= last:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes; the range {header[:60]!r} lies outside.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, last
