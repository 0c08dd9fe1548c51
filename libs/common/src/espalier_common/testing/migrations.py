"""Compares a service's entities with what its migrations make."""

from collections.abc import Callable

from sqlalchemy import Column, MetaData, Table, create_engine
from sqlalchemy.pool import NullPool

from espalier_common.tables import MESSAGING_TABLES


def assert_migrations_match(package: str, metadata: MetaData, url: str, *, left: frozenset[str] = frozenset()) -> None:
    """Migrates the empty database at `url` and fails with the differences to `metadata`, if there are any.

    `left` are tables that only the release before still uses, and a later one drops.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from espalier_common.migrations import migrate

    migrate(package, url)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"compare_type": True, "include_object": _besides(MESSAGING_TABLES | left)},
        )
        differences = compare_metadata(context, metadata)
    assert not differences, f"entities and migrations of {package} differ: {differences}"  # noqa: S101


def _besides(others: frozenset[str]) -> Callable[..., bool]:
    def is_compared(thing: object, name: str | None, kind: str, *_: object) -> bool:
        if kind == "table":
            return name not in others
        table = getattr(thing, "table", None)
        return not (isinstance(thing, Column) or isinstance(table, Table)) or getattr(table, "name", "") not in others

    return is_compared
