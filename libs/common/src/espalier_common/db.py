"""One PostgreSQL database per service, through SQLAlchemy 2 and psycopg2.

Everything here blocks: call it from plain handlers and from threads, never on the event loop.
"""

import os
import select
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from sqlalchemy import URL, BigInteger, DateTime, Dialect, Engine, MetaData, Uuid, create_engine, event, make_url, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.orm import Session, mapped_column, sessionmaker
from sqlalchemy.types import TypeDecorator

from espalier_common.identifiers import new_id as new_id  # noqa: PLC0414  (part of this interface)
from espalier_common.identifiers import utc_now as utc_now  # noqa: PLC0414  (the same)
from espalier_common.settings import SettingsError
from espalier_common.wakeups import Subscription, Wakeups

_ANNOUNCEMENTS = "announcements"
_WITNESS = "witness"

NAMING_CONVENTION = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """timestamptz that refuses naive datetimes on the way in and gives UTC on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use espalier_common.db.utc_now()")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)


Id = Annotated[str, mapped_column(Uuid(as_uuid=False))]
"""Type of id columns: `id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)`."""

BigInt = Annotated[int, mapped_column(BigInteger)]
"""Type of counters that outgrow 32 bits: bytes, tokens."""

TYPES: dict[Any, Any] = {datetime: UtcDateTime, dict[str, Any]: JSONB, list[str]: JSONB, list[Any]: JSONB}
"""`type_annotation_map` of every service's declarative base."""


def new_metadata() -> MetaData:
    """Metadata with the naming convention; one per service, so that two services may both have a table `sessions`."""
    return MetaData(naming_convention=NAMING_CONVENTION)


class Witness(Protocol):
    """Who sees the transactions of the call being served; used by `espalier_common.audit`."""

    def flushed(self, session: Session) -> None:
        """Its entities were just written; the session still holds what they were before."""

    def closing(self, session: Session) -> None:
        """Its work is done and it is about to be committed; what is written now is committed with it."""

    def committed(self, session: Session) -> None:
        """It is committed."""


witness_var: ContextVar[Witness | None] = ContextVar("espalier_witness", default=None)


class Database:
    """A pool of connections to the service's own database. Connects at first use, survives the server's restart."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.engine: Engine = create_engine(
            _parsed(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            # A few that are always used instead of all in turn: who has just worked has what he needs at hand.
            pool_use_lifo=True,
            connect_args={
                "connect_timeout": 5,
                # A peer that went without a word is found by the kernel, and then by `_check_open`.
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "application_name": f"espalier-{os.getpid()}",
                # A forgotten query or an open transaction must not hold locks for ever.
                "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=60s -c timezone=UTC",
            },
        )
        event.listen(self.engine, "checkout", _check_open)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        event.listen(self._sessions, "after_flush", _tell_flushed)
        self._wakeups = Wakeups()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of work: commits at the end of the block, rolls back when it raises."""
        witness = witness_var.get()
        with self._sessions() as session:
            with session.begin():
                if witness is not None:
                    session.info[_WITNESS] = witness
                yield session
                if witness is not None:
                    witness.closing(session)
            if witness is not None:
                witness.committed(session)
            for topic in session.info.get(_ANNOUNCEMENTS, ()):
                self._wakeups.notify(topic)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Looks without changing anything: each select sees what is committed as it begins.

        One round trip, where a transaction takes three: nothing has to be begun and committed.
        """
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.autocommit = True
            try:
                with Session(connection, autoflush=False, expire_on_commit=False) as session:
                    yield session
            finally:
                if not driver.closed:
                    driver.autocommit = False

    def subscribe(self, topic: str) -> AbstractContextManager[Subscription]:
        """Wakes after each commit of a transaction that used `announce(session, topic)`; used on the event loop."""
        return self._wakeups.subscribe(topic)

    def check(self) -> bool:
        """True when the database answers; raises SQLAlchemy's OperationalError otherwise."""
        with self.engine.connect() as connection:
            return bool(connection.execute(text("SELECT 1")).scalar_one())

    def close(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()


def _tell_flushed(session: Session, _: object) -> None:
    witness: Witness | None = session.info.get(_WITNESS)
    if witness is not None:
        witness.flushed(session)


def _check_open(driver: Any, record: object, proxy: object) -> None:  # noqa: ARG001
    """Lets the pool replace a connection that the server has ended, such as by its restart.

    A server says that it ends and closes, so that something is there to read where nothing was asked: a look at the
    socket tells, where a question (`pool_pre_ping`) would cost a round trip each time.
    """
    if not driver.closed:
        poll = select.poll()
        poll.register(driver.fileno(), select.POLLIN)
        if not poll.poll(0):
            return
    raise DisconnectionError("the server has ended the connection")


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            "ESPALIER_DATABASE_URL is missing or no URL such as postgresql+psycopg2://user:password@host:5432/name."
        ) from error


def announce(session: Session, topic: str) -> None:
    """Marks the transaction so that who is subscribed to the topic is woken once it is committed."""
    session.info.setdefault(_ANNOUNCEMENTS, set()).add(topic)
