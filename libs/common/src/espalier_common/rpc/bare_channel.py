"""Channels that add nothing to the calls: with them auth is asked who calls, before anybody is known."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import grpc

MAX_MESSAGE_BYTES = 16 << 20

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own back-off grows to two minutes; a service that was restarted must be found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # In spite of its name, what a connection may take to open: a busy machine needs more than a moment, and one
    # that does not answer at all, whose place another may have taken, is given up before gRPC's own 20 seconds.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Addresses are given; a proxy of the environment has no say between our own processes.
    ("grpc.enable_http_proxy", 0),
]


def open_bare_channel(address: str) -> grpc.Channel:
    """A blocking channel to host:port."""
    return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)


def lazy_channel(address: str) -> Callable[[], grpc.Channel]:
    """Gives such a channel, opened at the first call and kept."""
    return cache(partial(open_bare_channel, address))
