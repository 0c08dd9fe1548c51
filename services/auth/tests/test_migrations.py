"""Entities and migrations say the same."""

from espalier_auth.access import models  # noqa: F401  (its tables belong to the same metadata)
from espalier_auth.models import Base
from espalier_common.testing.migrations import assert_migrations_match


def test_the_migrations_make_what_the_entities_describe(database_url: str) -> None:
    assert_migrations_match("espalier_auth", Base.metadata, database_url)
