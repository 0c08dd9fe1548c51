"""Migrations of a service: found, run once, by one replica at a time."""

import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from espalier_common.migrations import head_of, migrate, migrations_dir
from espalier_common.settings import SettingsError
from espalier_common.testing.migrations import assert_migrations_match

FIRST = """
from alembic import op
import sqlalchemy as sa
from espalier_common.migrations import create_messaging_tables

revision: str = "0001"
down_revision = None

def upgrade() -> None:
    op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))
    create_messaging_tables(op)
"""
SECOND = """
from alembic import op
import sqlalchemy as sa

revision = '0002'
down_revision = '0001'

def upgrade() -> None:
    op.add_column("things", sa.Column("name", sa.Text))
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[str]:
    """A package in a source tree: src/<name>, migrations beside src."""
    name = f"migrated_{uuid.uuid4().hex}"
    (tmp_path / "src" / name).mkdir(parents=True)
    (tmp_path / "src" / name / "__init__.py").touch()
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "versions" / "0001_first.py").write_text(FIRST)
    sys.path.insert(0, str(tmp_path / "src"))
    yield name
    sys.path.remove(str(tmp_path / "src"))


def add(package: str, name: str, source: str) -> None:
    (migrations_dir(package) / "versions" / name).write_text(source)


def test_it_goes_to_the_newest_revision_and_knows_when_it_is_there(
    package: str, new_database: Callable[..., str]
) -> None:
    url = new_database()
    assert migrate(package, url)
    assert not migrate(package, url)
    add(package, "0002_second.py", SECOND)
    assert migrate(package, url)
    assert head_of(package) == "0002"


def test_replicas_that_start_together_migrate_once(package: str, new_database: Callable[..., str]) -> None:
    url = new_database()
    add(package, "0002_second.py", SECOND)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(package, url), range(4)))
    assert not migrate(package, url)


def test_a_failed_migration_leaves_the_revision_before(package: str, new_database: Callable[..., str]) -> None:
    url = new_database()
    migrate(package, url)
    add(package, "0002_second.py", SECOND + '\n    op.execute("SELECT nonsense")\n')
    with pytest.raises(sa.exc.ProgrammingError):
        migrate(package, url)
    add(package, "0002_second.py", SECOND)
    assert migrate(package, url)


def test_two_heads_are_refused(package: str) -> None:
    add(package, "0002_second.py", SECOND)
    add(package, "0002_other.py", SECOND.replace("'0002'", "'0003'"))
    with pytest.raises(SettingsError, match="several heads: 0002, 0003"):
        head_of(package)


def test_a_package_without_migrations_is_told() -> None:
    with pytest.raises(SettingsError, match="has no migrations"):
        migrations_dir("json")


def test_entities_that_differ_from_the_migrations_are_found(package: str, new_database: Callable[..., str]) -> None:
    same = sa.MetaData()
    sa.Table("things", same, sa.Column("id", sa.Integer, primary_key=True))
    assert_migrations_match(package, same, new_database())
    other = sa.MetaData()
    sa.Table("things", other, sa.Column("id", sa.Integer, primary_key=True), sa.Column("more", sa.Text))
    with pytest.raises(AssertionError, match="more"):
        assert_migrations_match(package, other, new_database())
