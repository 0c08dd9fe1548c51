"""Events between services over NATS JetStream.

Publishing is for the outbox (`espalier_common.outbox`) and for telemetry; nothing else publishes. Consumers are
durable and idempotent: a message takes effect once, in the transaction that also remembers its id; after five failed
deliveries it is kept in `dead_letters`. A service starts and serves while NATS is away, and goes on when it is back.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from google.protobuf.message import Message

from espalier_common.ending import end_tasks
from espalier_common.errors import Unavailable
from espalier_common.nats_client import client_type
from espalier_common.packs import PACK_HEADER, unpack
from espalier_common.settings import SettingsError
from espalier_common.streams import AUDIT as AUDIT  # noqa: PLC0414  (part of this interface, as are the next three)
from espalier_common.streams import EVENTS as EVENTS  # noqa: PLC0414
from espalier_common.streams import STREAMS
from espalier_common.streams import TELEMETRY as TELEMETRY  # noqa: PLC0414
from espalier_common.streams import Stream as Stream  # noqa: PLC0414
from espalier_common.telemetry import get_logger

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext
    from nats.js.api import StreamConfig
    from sqlalchemy.orm import Session

    from espalier_common.db import Database

MESSAGE_ID_HEADER = "Nats-Msg-Id"
STREAM_IS_THERE = 10058  # JetStream's code: under this name, with other settings
BATCH = 100  # messages applied together
MAX_DELIVERIES = 5
FETCH_SECONDS = 5.0  # until it is looked whether the connection still stands
ACK_WAIT = 60.0  # seconds until an unanswered message is delivered again
REDELIVERY_PAUSES = (0.5, 2.0, 5.0, 15.0)  # seconds before the second to the fifth delivery
KEEP_PROCESSED = timedelta(days=8)  # longer than any stream keeps a message

M = TypeVar("M", bound=Message)

_log = get_logger(__name__)


@dataclass(frozen=True)
class Event:
    """One message received. `message_id` is the same at each delivery of the same message."""

    subject: str
    payload: bytes
    message_id: str
    published_at: datetime
    headers: dict[str, str] = field(default_factory=dict)
    delivery: int = 1

    def parse(self, message_type: type[M]) -> M:
        """The payload as a proto message."""
        return message_type.FromString(self.payload)


class Bus:
    """A connection to NATS, named for the service. Reconnects for ever; calls while it is away raise Unavailable.

    Who `makes_streams` creates the stream that it publishes to; who does not may do nothing but publish.
    """

    def __init__(self, url: str, *, name: str, makes_streams: bool = True) -> None:
        if urlsplit(url).scheme != "nats" or not urlsplit(url).hostname:
            raise SettingsError("ESPALIER_NATS_URL is missing or no URL such as nats://user:password@host:4222.")
        self._url = url
        self._name = name
        self._makes_streams = makes_streams
        self._client: Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ensured: set[str] = set()

    @property
    def connected(self) -> bool:
        """True while the server answers."""
        return self._client is not None and self._client.is_connected

    async def start(self) -> None:
        """Begins to connect, in the background and for ever; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._connecting = asyncio.create_task(self._connect())

    async def wait_connected(self) -> None:
        """Waits for the first connection."""
        await self._ready.wait()

    async def close(self) -> None:
        """Flushes what is under way and disconnects."""
        if self._connecting is not None:
            await end_tasks([self._connecting])
        if self._client is not None and not self._client.is_closed:
            with suppress(Exception):
                await asyncio.wait_for(self._client.flush(), 1)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._client.close(), 5)

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str, headers: dict[str, str] | None = None
    ) -> None:
        """Publishes to JetStream and waits for its confirmation; a second one with the same `msg_id` is dropped there.

        Raises Unavailable when the bus is away or does not confirm within 5 s.
        """
        self._connection()  # before nats is imported here: see nats_client
        from nats.errors import Error

        if self._makes_streams:
            await self._ensure_for(subject)
        try:
            await self._jetstream().publish(
                subject, payload, timeout=5, headers={**(headers or {}), MESSAGE_ID_HEADER: msg_id}
            )
        except (Error, TimeoutError, OSError) as error:
            raise _away(error) from error

    def publish_from_thread(
        self, subject: str, payload: bytes, *, msg_id: str, headers: dict[str, str] | None = None
    ) -> None:
        """`publish` for threads; blocks."""
        if self._loop is None:
            raise Unavailable("The message bus is not started.")
        future = asyncio.run_coroutine_threadsafe(
            self.publish(subject, payload, msg_id=msg_id, headers=headers), self._loop
        )
        future.result(timeout=15)

    async def ensure_stream(self, stream: Stream) -> None:
        """Creates the stream; brings it to these settings where it is ours. Raises Unavailable when the bus is away."""
        self._connection()
        from nats.errors import Error
        from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

        if stream.name in self._ensured:
            return
        config = StreamConfig(
            name=stream.name,
            subjects=list(stream.subjects),
            max_age=stream.max_age,
            max_bytes=stream.max_bytes,
            duplicate_window=stream.duplicate_window,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW if stream.keeps_all else DiscardPolicy.OLD,
            retention=RetentionPolicy.WORK_QUEUE if stream.keeps_all else RetentionPolicy.LIMITS,
            allow_direct=True,
        )
        try:
            await self._put_stream(config, is_ours=stream.owner in ("", self._name))
        except (Error, TimeoutError, OSError) as error:
            raise _away(error) from error
        self._ensured.add(stream.name)

    async def _put_stream(self, config: "StreamConfig", *, is_ours: bool) -> None:
        from nats.js.errors import APIError, NotFoundError

        jetstream = self._jetstream()
        if is_ours:
            with suppress(NotFoundError):
                await jetstream.update_stream(config)
                return
        try:
            await jetstream.add_stream(config)
        except APIError as error:
            # Its owner, who may be of another release, says how it is.
            if is_ours or error.err_code != STREAM_IS_THERE:
                raise

    async def subscribe(self, stream: Stream, *, durable: str, subjects: Sequence[str]) -> Any:
        """A durable pull subscription, for `Consumer`. Raises Unavailable when the bus is away."""
        self._connection()
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        await self.ensure_stream(stream)
        config = ConsumerConfig(
            durable_name=durable,
            filter_subjects=list(subjects),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            # For ever: we give a bad one up ourselves, and while our database is away no good one may be dropped.
            max_deliver=-1,
            deliver_policy=DeliverPolicy.ALL,
            max_ack_pending=1000,
        )
        jetstream = self._jetstream()
        await jetstream.add_consumer(stream.name, config=config)
        return await jetstream.pull_subscribe_bind(durable=durable, stream=stream.name)

    async def live(self, subject: str) -> Any:
        """A plain subscription to what is published from now on; nothing is stored for it, nothing confirmed."""
        return await self._connection().subscribe(subject)

    async def _ensure_for(self, subject: str) -> None:
        for stream in STREAMS:
            if stream.takes(subject):
                await self.ensure_stream(stream)

    def _connection(self) -> "Client":
        if self._client is None or not self._client.is_connected:
            raise Unavailable("The message bus does not answer at the moment; try again.", retry_after=2)
        return self._client

    def _jetstream(self) -> "JetStreamContext":
        return self._connection().jetstream(timeout=5)

    async def _connect(self) -> None:
        new_client = await asyncio.to_thread(client_type)
        said = False
        while True:
            client = new_client()
            try:
                await client.connect(**self._options())
            except Exception as error:
                if not said:
                    _log.warning("message bus is away, trying on", error=type(error).__name__)
                said = True
                with suppress(Exception):
                    await client.close()
                await asyncio.sleep(0.5)
            else:
                self._client = client
                self._ready.set()
                _log.info("message bus connected")
                return

    def _options(self) -> dict[str, Any]:
        parts = urlsplit(self._url)
        return {
            "servers": [f"nats://{parts.hostname}:{parts.port or 4222}"],
            "user": unquote(parts.username or "") or None,
            "password": unquote(parts.password or "") or None,
            "name": self._name,
            # Private per user: see espalier_common.infra.nats.permissions_of.
            "inbox_prefix": f"_INBOX.{unquote(parts.username or self._name)}".encode(),
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.5,
            "connect_timeout": 2,
            "ping_interval": 20,
            "pending_size": 8 << 20,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
        }

    async def _on_error(self, error: Exception) -> None:
        _log.warning("message bus error", error=repr(error))

    async def _on_disconnect(self) -> None:
        _log.warning("message bus lost")
        # Its store may be another one when it is back.
        self._ensured.clear()

    async def _on_reconnect(self) -> None:
        _log.info("message bus is back")


def _away(error: BaseException) -> Unavailable:
    # The caller learns that it may try again; what NATS said is for the administrator.
    _log.warning("message bus refused or did not answer", error=repr(error))
    return Unavailable("The message bus does not answer at the moment; try again.", retry_after=2)


BatchHandler = Callable[["Session", Sequence[Event]], None]


class Consumer:
    """Applies events to the database, each once.

    `batch_handler(session, events)` runs in a thread, inside the transaction that also remembers the message ids; the
    messages are acknowledged after the commit. It gets the events of up to 100 messages at once.

    A failing message is tried five times with growing pauses, then kept in `dead_letters` with the error.
    """

    def __init__(
        self,
        bus: Bus,
        database: "Database",
        *,
        durable: str,
        subjects: Sequence[str],
        batch_handler: BatchHandler,
        stream: Stream = EVENTS,
    ) -> None:
        from espalier_common.inbox import Inbox

        self._bus = bus
        self._stream = stream
        self._durable = durable
        self._subjects = tuple(subjects)
        self._inbox = Inbox(database, consumer=durable, handler=batch_handler)

    async def run(self) -> None:
        """Consumes for ever; survives the absence of bus and database."""
        while True:
            try:
                await self._bus.wait_connected()
                subscription = await self._bus.subscribe(self._stream, durable=self._durable, subjects=self._subjects)
                await self._consume(subscription)
            except Exception as error:
                _log.warning("consumer interrupted, going on", consumer=self._durable, error=repr(error))
                await asyncio.sleep(1)

    async def _consume(self, subscription: Any) -> None:
        next_prune = time.monotonic() + 60
        while True:
            with suppress(TimeoutError):
                await self._apply(await _next_batch(subscription, BATCH))
            if not self._bus.connected:
                return
            if time.monotonic() > next_prune:
                await asyncio.to_thread(self._inbox.prune, KEEP_PROCESSED)
                next_prune = time.monotonic() + 3600

    async def _apply(self, messages: Sequence["Msg"]) -> None:
        carried = [_events_of(message) for message in messages]
        if await asyncio.to_thread(self._inbox.apply, [event for events in carried for event in events]):
            await asyncio.gather(*(message.ack() for message in messages))
            return
        # One of them is bad: each on its own, so that the good ones go through.
        for message, events in zip(messages, carried, strict=True):
            await self._apply_alone(message, events)

    async def _apply_alone(self, message: "Msg", events: Sequence[Event]) -> None:
        done = True
        for event in events:
            is_applied = await asyncio.to_thread(self._inbox.apply, [event])
            if not is_applied and event.delivery >= MAX_DELIVERIES:
                is_applied = await asyncio.to_thread(self._inbox.bury, event)
            done = done and is_applied
        if done:
            await message.ack()
        else:
            pause = min(message.metadata.num_delivered, len(REDELIVERY_PAUSES)) - 1
            await message.nak(delay=REDELIVERY_PAUSES[pause])


async def _next_batch(subscription: Any, size: int) -> list["Msg"]:
    """One message as soon as there is one, with those that wait behind it. Raises TimeoutError while there is none.

    The first is asked for alone. Asked for several, the client waits until all have come or the time is over whenever
    the first answers another request than its last, such as one that ran out a moment ago: for seconds, now and then.
    """
    messages: list[Msg] = await subscription.fetch(1, timeout=FETCH_SECONDS)
    if waiting := min(messages[0].metadata.num_pending, size - 1):
        with suppress(TimeoutError):  # another replica took them
            messages += await subscription.fetch(waiting, timeout=1)
    return messages


def _events_of(message: "Msg") -> list[Event]:
    headers = dict(message.headers or {})
    metadata = message.metadata
    if PACK_HEADER in headers:
        found = list(unpack(message.data))
    else:
        message_id = headers.get(MESSAGE_ID_HEADER) or f"{metadata.stream}:{metadata.sequence.stream}"
        found = [(message_id, message.data, headers)]
    return [
        Event(
            subject=message.subject,
            payload=payload,
            message_id=message_id,
            published_at=metadata.timestamp,
            headers=own,
            delivery=metadata.num_delivered,
        )
        for message_id, payload, own in found
    ]
