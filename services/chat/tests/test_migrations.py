"""The migrations make what the entities say."""

from espalier_chat.models import Base
from espalier_common.testing.migrations import assert_migrations_match


def test_entities_and_migrations_agree(database_url: str) -> None:
    assert_migrations_match("espalier_chat", Base.metadata, database_url)
