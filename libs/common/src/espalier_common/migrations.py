"""Alembic migrations of a service, run by the service itself under a lock that all its replicas share.

A service keeps `migrations/versions/*.py` and nothing else; the environment is ours (`alembic_env`).
"""

import importlib.util
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from espalier_common.settings import SettingsError
from espalier_common.telemetry import get_logger

if TYPE_CHECKING:
    from alembic.operations import Operations

LOCK_KEY = 0x65737061  # "espa"; the lock is per database, so one key serves all
DATABASE_PATIENCE = 30.0  # seconds to wait for a database that is still starting

_REVISION = re.compile(r"^revision(?:\s*:\s*[^=]+)?\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision(?:\s*:\s*[^=]+)?\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)

_log = get_logger(__name__)


def migrate(package: str, url: str) -> bool:
    """Brings the database of the service `package` to its newest revision. False when it was there already.

    Safe to run from several replicas at once. Waits up to 30 s for a database that is starting.
    Raises SettingsError when the database never answers.
    """
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    with _connect_patiently(engine) as connection:
        if _is_at_head(connection, package):
            return False
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        connection.commit()
        try:
            # A replica that waited for the lock finds the work done.
            if not _is_at_head(connection, package):
                _upgrade(connection, package)
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
            connection.commit()
    return True


def head_of(package: str) -> str:
    """The newest revision among the files; empty when there are none. Raises SettingsError when there are two heads."""
    revisions, parents = set(), set()
    for path in sorted((migrations_dir(package) / "versions").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        revisions.update(_REVISION.findall(source))
        parents.update(_DOWN_REVISION.findall(source))
    heads = sorted(revisions - parents)
    if len(heads) > 1:
        raise SettingsError(f"The migrations of {package} have several heads: {', '.join(heads)}.")
    return heads[0] if heads else ""


def migrations_dir(package: str) -> Path:
    """Where the migrations of a package are: inside it when installed from a wheel, beside its `src` in the tree."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SettingsError(f"The package {package} is not installed.")
    root = Path(spec.origin).parent
    for candidate in (root / "_migrations", root.parent.parent / "migrations"):
        if (candidate / "versions").is_dir():
            return candidate
    raise SettingsError(
        f"{package} has no migrations: neither {root / '_migrations'} nor a folder migrations in the tree."
    )


def create_messaging_tables(op: "Operations") -> None:
    """The tables of `espalier_common.outbox` and `.bus`, for the first revision of a service that uses them."""
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import JSONB

    op.create_table(
        "outbox",
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False, unique=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_outbox_unpublished", "outbox", ["sequence"], postgresql_where=sa.text("published_at IS NULL"))
    op.create_table(
        "processed_messages",
        sa.Column("consumer", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("consumer", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )


def drop_messaging_tables(op: "Operations") -> None:
    """Undoes `create_messaging_tables`."""
    for table in ("dead_letters", "processed_messages", "outbox"):
        op.drop_table(table)


def alembic_config(package: str) -> Any:
    """Alembic's Config of a service, for its own commands and for tests."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic_env"))
    # newline: a path may hold spaces, colons and commas
    config.set_main_option("path_separator", "newline")
    versions = str(migrations_dir(package) / "versions").replace("%", "%%")
    config.set_main_option("version_locations", versions)
    return config


def _connect_patiently(engine: Engine) -> Connection:
    end = time.monotonic() + DATABASE_PATIENCE
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            if time.monotonic() > end or "authentication failed" in str(error):
                cause = str(error.orig).strip().splitlines()[-1]
                raise SettingsError(f"ESPALIER_DATABASE_URL: the database does not answer: {cause}") from error
            time.sleep(0.2)


def _is_at_head(connection: Connection, package: str) -> bool:
    head = head_of(package)
    exists = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
    found = set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) if exists else set()
    connection.rollback()
    return found == ({head} if head else set())


def _upgrade(connection: Connection, package: str) -> None:
    from alembic import command

    config = alembic_config(package)
    config.attributes["connection"] = connection
    _log.info("migrating", package=package, to=head_of(package))
    command.upgrade(config, "head")
    connection.commit()
