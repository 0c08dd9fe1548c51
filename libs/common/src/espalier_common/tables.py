"""The tables that `migrations.create_messaging_tables` makes, as SQLAlchemy Core tables with metadata of their own."""

from sqlalchemy import BigInteger, Column, Identity, LargeBinary, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from espalier_common.db import UtcDateTime

_metadata = MetaData()

outbox = Table(
    "outbox",
    _metadata,
    Column("sequence", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid(as_uuid=False), nullable=False, unique=True),
    Column("subject", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("published_at", UtcDateTime),
)

processed_messages = Table(
    "processed_messages",
    _metadata,
    Column("consumer", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("processed_at", UtcDateTime, nullable=False),
)

dead_letters = Table(
    "dead_letters",
    _metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("error", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

MESSAGING_TABLES = frozenset(_metadata.tables)
