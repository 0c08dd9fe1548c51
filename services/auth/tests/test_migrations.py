"""Entities and migrations say the same."""

from espalier_auth import assembly  # noqa: F401  (with it come the tables of every noun)
from espalier_auth.access import models as access_models  # noqa: F401
from espalier_auth.models import Base
from espalier_auth.oidc import models as oidc_models  # noqa: F401
from espalier_common.testing.migrations import assert_migrations_match


def test_the_migrations_make_what_the_entities_describe(database_url: str) -> None:
    # Replicas of the release before count tries there while they are replaced.
    assert_migrations_match("espalier_auth", Base.metadata, database_url, left=frozenset({"password_tries"}))
