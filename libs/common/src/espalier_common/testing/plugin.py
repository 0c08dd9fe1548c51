"""pytest plugin of the workspace: real PostgreSQL, NATS and gRPC servers, on free ports and in fresh folders.

Nothing is started before a test asks for it, and nothing of a running platform is touched.
"""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from espalier_common.db import Database
    from espalier_common.infra.postgres import LocalPostgres
    from espalier_common.rpc.server import ServicerEntry
    from espalier_common.testing.rpc import RpcTestServer

MigratedDatabase = Callable[[str], "Database"]
RpcServerFactory = Callable[..., Awaitable["RpcTestServer"]]


@pytest.fixture(scope="session")
def service_home() -> Iterator[Path]:
    """A folder that another user of the machine can pass through: PostgreSQL runs as one when the tests run as root."""
    home = Path(tempfile.mkdtemp(prefix="espalier-test-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(service_home: Path) -> "Iterator[LocalPostgres]":
    """A real server from the wheel, with its durability off; stopped at the end of the session."""
    from espalier_common.infra import processes
    from espalier_common.infra.postgres import LocalPostgres

    server = LocalPostgres(
        service_home / "postgres", port=processes.free_port(), password=uuid.uuid4().hex, durable=False
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def new_database(postgres: "LocalPostgres") -> Iterator[Callable[..., str]]:
    """Factory: URL of a fresh, empty database (`template="name"` copies one); dropped after the module."""
    from psycopg2 import sql

    names: list[str] = []

    def create(template: str = "template0") -> str:
        name = f"test_{uuid.uuid4().hex}"
        with closing(postgres.connect()) as connection, connection.cursor() as cursor:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")  # half the time, here
            cursor.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        names.append(name)
        return postgres.url(name)

    yield create
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def database_url(new_database: Callable[..., str]) -> str:
    """URL of a fresh, empty database for the module."""
    return new_database()


@pytest.fixture(scope="session")
def _templates() -> dict[str, str]:
    """Names of databases already migrated, by package: copying one takes a tenth of migrating again."""
    return {}


@pytest.fixture
def migrated_database(
    postgres: "LocalPostgres", new_database: Callable[..., str], _templates: dict[str, str]
) -> Iterator[MigratedDatabase]:
    """Factory: `migrated_database("espalier_auth")` gives a `Database` at the newest revision, fresh for the test."""
    from espalier_common.db import Database

    opened: list[Database] = []

    def create(package: str) -> Database:
        database = Database(new_database(template=_template(postgres, package, _templates)))
        opened.append(database)
        return database

    yield create
    for database in opened:
        database.close()


@pytest.fixture(scope="module")
def _module_databases(
    postgres: "LocalPostgres", new_database: Callable[..., str], _templates: dict[str, str]
) -> Iterator[MigratedDatabase]:
    from espalier_common.db import Database

    opened: dict[str, Database] = {}

    def find(package: str) -> Database:
        if package not in opened:
            opened[package] = Database(new_database(template=_template(postgres, package, _templates)))
        return opened[package]

    yield find
    for database in opened.values():
        database.close()


@pytest.fixture
def emptied_database(_module_databases: MigratedDatabase) -> MigratedDatabase:
    """Factory as `migrated_database`, but one database for the module, emptied for each test: a twentieth of the time.

    For services whose migrations leave no rows behind.
    """
    from sqlalchemy import text

    tables = "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
    tables += " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"

    def create(package: str) -> "Database":
        database = _module_databases(package)
        with database.transaction() as session:
            session.execute(text(f"TRUNCATE {session.scalar(text(tables))}"))
        return database

    return create


def _template(postgres: "LocalPostgres", package: str, made: dict[str, str]) -> str:
    """Name of a database at the newest revision, made at the first call."""
    if package not in made:
        made[package] = _make_template(postgres, package)
    return made[package]


def _make_template(postgres: "LocalPostgres", package: str) -> str:
    from psycopg2 import sql

    from espalier_common.migrations import migrate

    name = f"template_{package}"
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(package, postgres.url(name))
    return name


@pytest.fixture(scope="session")
def nats_url(service_home: Path) -> Iterator[str]:
    """URL of a real NATS server whose user may do everything; stopped at the end of the session."""
    from espalier_common.infra import processes
    from espalier_common.infra.nats import LocalNats

    server = LocalNats(
        service_home / "nats", port=processes.free_port(), passwords={"test": uuid.uuid4().hex}, unrestricted=True
    )
    server.start()
    yield server.url("test")
    server.stop()


@pytest_asyncio.fixture
async def rpc_server() -> AsyncIterator[RpcServerFactory]:
    """Factory: `await rpc_server([(add_fn, servicer, descriptor)])` gives an `RpcTestServer`, stopped afterwards."""
    from espalier_common.testing.rpc import start_rpc_server

    started: list[RpcTestServer] = []

    async def create(servicers: "Sequence[ServicerEntry]", **service: Any) -> "RpcTestServer":
        server = await start_rpc_server(servicers, **service)
        started.append(server)
        return server

    yield create
    for server in started:
        await server.close()
