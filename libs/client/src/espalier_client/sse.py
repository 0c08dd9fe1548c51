"""Server-Sent Events, as a browser reads them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerEvent:
    """One event: its type ("message" by default), the last id seen, its data."""

    event: str
    id: str
    data: str


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """The events in the lines of a stream; comments (heartbeats) and events without data are left out."""
    kind, identity, data = "message", "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(kind, identity, "\n".join(data))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            identity = value
