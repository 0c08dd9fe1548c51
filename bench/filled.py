"""A database of auth that is made for one measurement, and filled with far more than a test would make."""

import io
import json
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Table
from sqlalchemy import text as sql

from espalier_common.db import Database
from espalier_common.infra import processes
from espalier_common.infra.postgres import LocalPostgres
from espalier_common.migrations import migrate

RESULTS = Path(__file__).resolve().parent / "results"


@contextmanager
def empty_database(name: str) -> Iterator[Database]:
    """In a PostgreSQL of its own with the platform's settings, which goes with it."""
    home = Path(tempfile.mkdtemp(prefix="espalier-bench-"))
    home.chmod(0o755)  # PostgreSQL runs as another user when we are root
    postgres = LocalPostgres(home / "postgres", port=processes.free_port(), password=uuid.uuid4().hex)
    try:
        postgres.start()
        with closing(postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        url = postgres.url(name)
        migrate("espalier_auth", url)
        yield Database(url)
    finally:
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


def copy_in(database: Database, table: object, columns: Sequence[str], batches: Iterable[Iterable[str]]) -> None:
    """Copies lines in, batch by batch, and lets PostgreSQL count what it knows of them."""
    assert isinstance(table, Table)
    # Built at the end: kept up row by row, a million rows take four times as long.
    for index in table.indexes:
        index.drop(database.engine)
    with closing(database.engine.raw_connection()) as connection:
        cursor = connection.cursor()
        for lines in batches:
            text = io.StringIO("".join(lines))
            cursor.copy_expert(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN", text)
            connection.commit()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.execute(sql("SET statement_timeout = 0"))
        for index in table.indexes:
            index.create(session)
        session.execute(sql(f"VACUUM ANALYZE {table.name}"))


def keep(result: dict[str, Any], name: str) -> None:
    """Writes a result, whole, to bench/results."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-{result['measured_at'].replace(':', '')}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    progress(f"written to {file}")


def progress(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{text}\n")
