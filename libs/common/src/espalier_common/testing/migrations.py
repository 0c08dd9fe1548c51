"""Compares a service's entities with what its migrations make."""

from sqlalchemy import Column, MetaData, Table, create_engine
from sqlalchemy.pool import NullPool

from espalier_common.tables import MESSAGING_TABLES


def assert_migrations_match(package: str, metadata: MetaData, url: str) -> None:
    """Migrates the empty database at `url` and fails with the differences to `metadata`, if there are any."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from espalier_common.migrations import migrate

    migrate(package, url)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": _is_of_the_service}
        )
        differences = compare_metadata(context, metadata)
    assert not differences, f"entities and migrations of {package} differ: {differences}"  # noqa: S101


def _is_of_the_service(thing: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:  # noqa: ARG001
    if kind == "table":
        return name not in MESSAGING_TABLES
    table = getattr(thing, "table", None)
    return (
        not (isinstance(thing, Column) or isinstance(table, Table))
        or getattr(table, "name", "") not in MESSAGING_TABLES
    )
