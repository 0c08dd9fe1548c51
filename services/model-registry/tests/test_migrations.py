"""The migrations make what the entities say."""

from espalier_common.testing.migrations import assert_migrations_match
from espalier_model_registry.models import Base


def test_entities_and_migrations_agree(database_url: str) -> None:
    assert_migrations_match("espalier_model_registry", Base.metadata, database_url)
