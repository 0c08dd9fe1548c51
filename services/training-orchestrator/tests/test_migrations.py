"""Entities and migrations say the same."""

from espalier_common.testing.migrations import assert_migrations_match
from espalier_training_orchestrator.models import Base


def test_the_migrations_make_what_the_entities_expect(database_url: str) -> None:
    assert_migrations_match("espalier_training_orchestrator", Base.metadata, database_url)
