"""Several events in one message: what a message costs is the message, hardly its bytes.

Who consumes sees the events one by one, each with the id that it was recorded with, so it takes effect once however the
events were packed, and packed anew after a failure.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from espalier.common.v1 import events_pb2

# NATS refuses messages of more than 1 MiB.
MAX_PACK_BYTES = 512 << 10
PACK_HEADER = "Espalier-Pack"

Packed = tuple[str, bytes, dict[str, str]]
"""Id, payload and headers of one event."""


@dataclass(frozen=True)
class Pack:
    """A message that carries several events."""

    id: str
    payload: bytes
    headers: dict[str, str]


def pack(events: Sequence[Packed]) -> Pack:
    """One message of all of them. Its id is that of exactly these events in this order."""
    message = events_pb2.EventPack(
        events=[events_pb2.PackedEvent(id=id, payload=payload, headers=headers) for id, payload, headers in events]
    )
    ids = hashlib.sha256("\0".join(id for id, _, _ in events).encode()).hexdigest()
    return Pack(ids, message.SerializeToString(), {PACK_HEADER: str(len(events))})


def unpack(payload: bytes) -> Iterator[Packed]:
    """The events of a message that has the header `Espalier-Pack`."""
    for event in events_pb2.EventPack.FromString(payload).events:
        yield event.id, event.payload, dict(event.headers)
